package io.kvtier.coordinator.lead;

import static org.assertj.core.api.Assertions.assertThat;

import io.kvtier.coordinator.log.Leadership;
import io.kvtier.coordinator.membership.NodeLeases;
import io.kvtier.coordinator.session.Reservations;
import io.kvtier.v1.Node;
import io.kvtier.v1.Role;
import java.time.Duration;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.atomic.AtomicLong;
import org.junit.jupiter.api.Test;

/** Which nodes the coordinator that leads takes for lost, and when. */
class LeadTest {
  private static final long LEASE_NS = Duration.ofSeconds(15).toNanos();
  private static final long SECOND_NS = Duration.ofSeconds(1).toNanos();
  private static final Node NODE =
      Node.newBuilder().setNodeId("a").setRole(Role.ROLE_TIER).setTarget("a:1").build();

  private final AtomicLong nowNs = new AtomicLong();
  private final TermedLog log = new TermedLog();
  private final Lead lead =
      new Lead(log, new Reservations(8), new NodeLeases(LEASE_NS), nowNs::get, () -> 0L);

  private boolean isMember() {
    return lead.look(view -> view.state().nodes().knows(NODE));
  }

  private void heard() {
    boolean _ =
        lead.look(view -> {
          view.leases().renew(NODE.getNodeId(), 0, 0, view.nowNs());
          return true;
        });
  }

  /** Another one has heard the nodes meanwhile: they are granted a whole lease. */
  @Test
  void whoLeadsAgainKnowsNothingOfLeases() {
    long _ = lead.register(NODE);
    log.leadership = new Leadership(false, Optional.of("b:1"), 2);
    nowNs.addAndGet(2 * LEASE_NS);
    lead.removeLapsed();
    assertThat(isMember()).as("it does not lead").isTrue();
    log.leadership = new Leadership(true, Optional.empty(), 3);
    lead.removeLapsed();
    assertThat(isMember()).isTrue();
    nowNs.addAndGet(LEASE_NS - 1);
    lead.removeLapsed();
    assertThat(isMember()).isTrue();
    nowNs.addAndGet(1);
    lead.removeLapsed();
    assertThat(isMember()).isFalse();
  }

  @Test
  void aNodeThatRefusesIsLostOnceItHasForAWhileAndIsHeardNoMore() {
    long _ = lead.register(NODE);
    nowNs.addAndGet(5 * SECOND_NS);
    lead.removeRefusing(List.of(new Refusing(NODE, SECOND_NS - 1)));
    assertThat(isMember()).as("it may just be started again").isTrue();
    heard();
    nowNs.addAndGet(SECOND_NS - 1);
    lead.removeRefusing(List.of(new Refusing(NODE, 5 * SECOND_NS)));
    assertThat(isMember()).as("it was heard").isTrue();
    nowNs.addAndGet(1);
    log.leadership = new Leadership(false, Optional.of("b:1"), 1);
    lead.removeRefusing(List.of(new Refusing(NODE, SECOND_NS)));
    assertThat(isMember()).as("others say who is a member").isTrue();
    log.leadership = new Leadership(true, Optional.empty(), 1);
    lead.removeRefusing(List.of(new Refusing(NODE, SECOND_NS)));
    assertThat(isMember()).isFalse();
  }
}
