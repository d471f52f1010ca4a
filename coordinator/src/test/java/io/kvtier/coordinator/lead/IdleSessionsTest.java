package io.kvtier.coordinator.lead;

import static org.assertj.core.api.Assertions.assertThat;

import io.kvtier.coordinator.membership.NodeLeases;
import io.kvtier.coordinator.metrics.CoordinatorMeters;
import io.kvtier.coordinator.session.Reservations;
import io.kvtier.v1.Command;
import io.kvtier.v1.Node;
import io.kvtier.v1.Role;
import io.kvtier.v1.Session;
import io.kvtier.v1.SessionRecord;
import io.kvtier.v1.SessionRef;
import io.micrometer.core.instrument.simple.SimpleMeterRegistry;
import java.time.Duration;
import java.util.concurrent.atomic.AtomicLong;
import org.junit.jupiter.api.Test;

/** Which sessions are ended since nobody uses them, and which are not. */
class IdleSessionsTest {
  private static final long IDLE_NS = Duration.ofSeconds(10).toNanos();

  private final AtomicLong nowNs = new AtomicLong(Long.MAX_VALUE - 5);
  private final Reservations reservations = new Reservations(8);
  private final Lead lead =
      new Lead(new TermedLog(), reservations, new NodeLeases(1000 * IDLE_NS), nowNs::get, () -> 0L);
  private final IdleSessions idle =
      new IdleSessions(lead, new CoordinatorMeters(new SimpleMeterRegistry()));

  private void open(String id, String target) {
    var _ =
        lead.submit(
            Command.newBuilder()
                .setOpen(
                    SessionRecord.newBuilder()
                        .setSession(
                            Session.newBuilder()
                                .setSessionId(id)
                                .setEpoch(1)
                                .setIdleTimeoutMs((int) Duration.ofNanos(IDLE_NS).toMillis())
                                .setWorkerTarget(target))));
  }

  private int count() {
    return lead.look(view -> view.state().sessions().count());
  }

  private static SessionRef ref(String id) {
    return SessionRef.newBuilder().setSessionId(id).setEpoch(1).build();
  }

  /** Its worker may tell of it before the coordinators have agreed on it. */
  @Test
  void aSessionThatIsAboutToOpenIsNotFreed() {
    reservations.reserve("opening", "w:1", 0);
    assertThat(idle.told(ref("opening"), "w:1")).isEmpty();
    reservations.release("opening");
    assertThat(idle.told(ref("opening"), "w:1").orElseThrow().getKeepPages()).isFalse();
  }

  @Test
  void aSessionWithoutAWorkerEndsWithItsTimeOutAndNotBefore() {
    long _ =
        lead.register(
            Node.newBuilder().setNodeId("w").setRole(Role.ROLE_WORKER).setTarget("w:1").build());
    open("served", "w:1");
    open("unserved", "gone:1");
    idle.expireUnserved();
    nowNs.addAndGet(IDLE_NS - 1);
    idle.expireUnserved();
    assertThat(count()).isEqualTo(2);
    nowNs.addAndGet(1);
    idle.expireUnserved();
    assertThat(lead.<Boolean>look(view -> view.state().sessions().find("served").isPresent()))
        .isTrue();
    assertThat(count()).isOne();
  }
}
