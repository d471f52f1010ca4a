package io.kvtier.coordinator.lead;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.coordinator.membership.NodeLeases;
import io.kvtier.coordinator.metrics.CoordinatorMeters;
import io.kvtier.coordinator.prefix.StoredPrefix;
import io.kvtier.coordinator.session.Reservations;
import io.kvtier.page.Codec;
import io.kvtier.page.PrefixChain;
import io.kvtier.v1.AttachRequest;
import io.kvtier.v1.AttachResponse;
import io.kvtier.v1.Command;
import io.kvtier.v1.Node;
import io.kvtier.v1.ResumeRequest;
import io.kvtier.v1.Role;
import io.kvtier.v1.Session;
import io.kvtier.v1.SessionRecord;
import io.micrometer.core.instrument.simple.SimpleMeterRegistry;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.junit.jupiter.api.Test;

/** Resumption over workers that take a session and do not get to say so. */
class SessionMoverTest {
  private static final String ID = "00000000-0000-0001-0000-000000000002";

  private final TermedLog log = new TermedLog();
  private final Lead lead =
      new Lead(log, new Reservations(8), new NodeLeases(1000), () -> 0L, () -> 0L);
  private final FakeWorkers workers = new FakeWorkers();
  private final CoordinatorMeters meters = new CoordinatorMeters(new SimpleMeterRegistry());
  private final SessionMover mover =
      new SessionMover(lead, workers, new Prompts(new NoPrefixes()), meters);

  /** Workers by target, with the epochs that they have taken the session in. */
  private static final class FakeWorkers implements Workers {
    final Map<String, Long> epochs = new HashMap<>();
    final Set<String> answersLost = new HashSet<>();
    final Set<String> dead = new HashSet<>();
    final List<String> detached = new ArrayList<>();

    @Override
    public AttachResponse attach(AttachRequest request) {
      Session session = request.getSession();
      String target = session.getWorkerTarget();
      if (dead.contains(target)) {
        throw new KvtierException(Code.UNAVAILABLE, "worker " + target + " is dead");
      }
      if (session.getEpoch() <= epochs.getOrDefault(target, 0L)) {
        throw KvtierException.precondition("epoch %d is not newer", session.getEpoch());
      }
      epochs.put(target, session.getEpoch());
      if (answersLost.contains(target)) {
        throw new KvtierException(Code.UNAVAILABLE, "worker " + target + " did not answer");
      }
      return AttachResponse.getDefaultInstance();
    }

    @Override
    public boolean answers(String target) {
      return !dead.contains(target);
    }

    @Override
    public boolean detach(Session session, boolean keepPages) {
      return true;
    }

    @Override
    public void detachLater(Session session, boolean keepPages) {
      assertThat(keepPages).as("they are another worker's now").isTrue();
      detached.add(session.getWorkerTarget() + " " + session.getEpoch());
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

  private void open() {
    workers.epochs.put("a:1", 1L);
    var _ =
        lead.submit(
            Command.newBuilder()
                .setOpen(
                    SessionRecord.newBuilder()
                        .setSession(
                            Session.newBuilder()
                                .setSessionId(ID)
                                .setEpoch(1)
                                .setWorkerTarget("a:1"))));
  }

  private Session resume(long epoch) {
    return mover
        .resume(
            ResumeRequest.newBuilder()
                .setSessionId(ID)
                .setEpoch(epoch)
                .setWorkerFailed(true)
                .build(),
            new Caller("default", () -> false))
        .getSession();
  }

  @Test
  void noTwoWorkersHaveASessionInOneEpochWhenAnAnswerIsLost() {
    register("a");
    register("b");
    register("c");
    open();
    workers.dead.add("a:1");
    workers.answersLost.add("b:1");
    Session moved = resume(1);
    assertThat(moved.getWorkerTarget()).isEqualTo("c:1");
    assertThat(workers.epochs.get("c:1")).isEqualTo(moved.getEpoch());
    assertThat(workers.epochs.get("b:1")).isLessThan(moved.getEpoch());
  }

  @Test
  void norWhenTheCallIsMadeAgain() {
    register("a");
    register("b");
    open();
    workers.dead.add("a:1");
    workers.answersLost.add("b:1");
    assertThatThrownBy(() -> resume(1)).isInstanceOf(KvtierException.class);
    register("c");
    workers.dead.add("b:1");
    Session moved = resume(1);
    assertThat(moved.getWorkerTarget()).isEqualTo("c:1");
    assertThat(workers.epochs.get("b:1")).isLessThan(moved.getEpoch());
  }

  @Test
  void aWorkerThatTookItUnheardTakesItAgain() {
    register("a");
    open();
    workers.answersLost.add("a:1");
    assertThatThrownBy(() -> resume(1)).isInstanceOf(KvtierException.class);
    workers.answersLost.clear();
    Session resumed = resume(1);
    assertThat(resumed.getWorkerTarget()).isEqualTo("a:1");
    assertThat(workers.epochs.get("a:1")).isEqualTo(resumed.getEpoch());
  }

  /** The worker left may live, and the one that took it must not keep what was not agreed on. */
  @Test
  void whoDoesNotHaveTheSessionIsTold() {
    register("a");
    register("b");
    open();
    workers.dead.add("a:1");
    log.fails = true;
    assertThatThrownBy(() -> resume(1)).isInstanceOf(KvtierException.class);
    assertThat(workers.detached).containsExactly("b:1 2");
    log.fails = false;
    Session moved = resume(1);
    assertThat(moved.getEpoch()).isEqualTo(3);
    assertThat(workers.detached).containsExactly("b:1 2", "a:1 1");
  }
}
