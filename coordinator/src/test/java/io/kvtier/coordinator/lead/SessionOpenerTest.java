package io.kvtier.coordinator.lead;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.google.protobuf.ByteString;
import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.coordinator.log.LocalLog;
import io.kvtier.coordinator.membership.NodeLeases;
import io.kvtier.coordinator.metrics.CoordinatorMeters;
import io.kvtier.coordinator.prefix.StoredPrefix;
import io.kvtier.coordinator.session.Reservations;
import io.kvtier.page.Codec;
import io.kvtier.page.PrefixChain;
import io.kvtier.v1.AttachRequest;
import io.kvtier.v1.AttachResponse;
import io.kvtier.v1.Dtype;
import io.kvtier.v1.Geometry;
import io.kvtier.v1.Node;
import io.kvtier.v1.OpenRequest;
import io.kvtier.v1.Role;
import io.kvtier.v1.Session;
import io.micrometer.core.instrument.simple.SimpleMeterRegistry;
import java.util.ArrayList;
import java.util.List;
import java.util.UUID;
import java.util.concurrent.atomic.AtomicBoolean;
import org.junit.jupiter.api.Test;

/** What is left of sessions that could not be opened: nothing. */
class SessionOpenerTest {
  private static final OpenRequest REQUEST =
      OpenRequest.newBuilder()
          .setGeometry(
              Geometry.newBuilder()
                  .setLayers(1)
                  .setQHeads(1)
                  .setKvHeads(1)
                  .setHeadDim(64)
                  .setKvDtype(Dtype.DTYPE_BF16)
                  .setModelFingerprint(ByteString.copyFrom(new byte[16])))
          .setTokensMax(100)
          .build();

  private final Reservations reservations = new Reservations(2);
  private final Lead lead =
      new Lead(new LocalLog(1), reservations, new NodeLeases(1000), () -> 0L, () -> 0L);
  private final List<Session> attached = new ArrayList<>();
  private final List<Session> detached = new ArrayList<>();
  private final AtomicBoolean gone = new AtomicBoolean();
  private final SessionOpener opener =
      new SessionOpener(
          lead,
          new Taking(),
          new Prompts(new NoPrefixes()),
          UUID::randomUUID,
          new CoordinatorMeters(new SimpleMeterRegistry()));

  /** Workers that take all sessions; meanwhile the caller may leave. */
  private final class Taking implements Workers {
    @Override
    public AttachResponse attach(AttachRequest request) {
      attached.add(request.getSession());
      if (request.getSession().getWorkerTarget().equals("slow:1")) {
        gone.set(true);
      }
      return AttachResponse.getDefaultInstance();
    }

    @Override
    public boolean answers(String target) {
      return true;
    }

    @Override
    public boolean detach(Session session, boolean keepPages) {
      throw new IllegalStateException("nobody waits for it");
    }

    @Override
    public void detachLater(Session session, boolean keepPages) {
      assertThat(keepPages).isFalse();
      detached.add(session);
    }
  }

  private static final class NoPrefixes implements PrefixSource {
    @Override
    public StoredPrefix find(PrefixChain chain, int layers, Codec codec) {
      return StoredPrefix.NONE;
    }

    @Override
    public boolean whole() {
      return true;
    }
  }

  private void register(String id) {
    long _ =
        lead.register(
            Node.newBuilder().setNodeId(id).setRole(Role.ROLE_WORKER).setTarget(id + ":1").build());
  }

  private Session open() {
    return opener.open(REQUEST, new Caller("default", gone::get)).getSession();
  }

  private int open(String target) {
    return lead.look(view -> view.countOn(target));
  }

  @Test
  void aSessionThatNobodyWaitsForAnyMoreIsFreed() {
    register("slow");
    assertThatThrownBy(this::open)
        .isInstanceOfSatisfying(
            KvtierException.class, e -> assertThat(e.code()).isEqualTo(Code.UNAVAILABLE));
    assertThat(attached).hasSize(1);
    assertThat(detached).isEqualTo(attached);
    assertThat(open("slow:1")).isZero();
    assertThat(lead.<Integer>look(view -> view.state().sessions().count())).isZero();
  }

  @Test
  void whatIsOpenIsNotFreedAndTakesOnePlace() {
    register("quick");
    Session session = open();
    assertThat(detached).isEmpty();
    assertThat(open("quick:1")).isOne();
    assertThat(lead.<Boolean>look(view -> reservations.contains(session.getSessionId()))).isFalse();
    Session second = open();
    assertThat(second.getSessionId()).isNotEqualTo(session.getSessionId());
    assertThatThrownBy(this::open)
        .isInstanceOfSatisfying(
            KvtierException.class, e -> assertThat(e.code()).isEqualTo(Code.EXHAUSTED));
  }

  /** What one tenant calls its request is nothing to another. */
  @Test
  void aRequestOfAnotherTenantIsAnother() {
    register("quick");
    OpenRequest request = REQUEST.toBuilder().setRequestId("r").build();
    Session first = opener.open(request, new Caller("one", gone::get)).getSession();
    Session second = opener.open(request, new Caller("two", gone::get)).getSession();
    assertThat(second.getSessionId()).isNotEqualTo(first.getSessionId());
    assertThat(second.getTenant()).isEqualTo("two");
    assertThat(opener.open(request, new Caller("one", gone::get)).getSession()).isEqualTo(first);
    assertThat(attached).hasSize(2);
  }
}
