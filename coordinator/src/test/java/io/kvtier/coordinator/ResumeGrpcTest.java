package io.kvtier.coordinator;

import static io.kvtier.coordinator.LoopbackCluster.openRequest;
import static io.kvtier.coordinator.LoopbackCluster.refused;
import static java.util.Objects.requireNonNull;
import static org.assertj.core.api.Assertions.assertThat;

import io.grpc.Status;
import io.kvtier.v1.CloseRequest;
import io.kvtier.v1.DetachRequest;
import io.kvtier.v1.DrainRequest;
import io.kvtier.v1.DrainResponse;
import io.kvtier.v1.ForkRequest;
import io.kvtier.v1.GetSessionRequest;
import io.kvtier.v1.HeartbeatRequest;
import io.kvtier.v1.HeartbeatResponse;
import io.kvtier.v1.NodeState;
import io.kvtier.v1.OpenRequest;
import io.kvtier.v1.RegisterRequest;
import io.kvtier.v1.ResumeRequest;
import io.kvtier.v1.Role;
import io.kvtier.v1.Session;
import io.kvtier.v1.SessionRef;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/** Sessions that are resumed, owned, and idle. */
final class ResumeGrpcTest {
  private final LoopbackCluster cluster = new LoopbackCluster(8, Duration.ofSeconds(10));
  private final LoopbackWorker first = new LoopbackWorker();
  private final LoopbackWorker second = new LoopbackWorker();

  @BeforeEach
  void join() {
    cluster.register("w1", first.target());
    cluster.register("w2", second.target());
  }

  @AfterEach
  void close() {
    cluster.close();
    first.close();
    second.close();
  }

  @Test
  void aSessionStaysWithAWorkerThatAnswers() {
    first.layerTokens = List.of(70, 64);
    Session open = open();
    for (boolean workerFailed : new boolean[] {false, true}) {
      Session before = get(open);
      Session resumed = resume(before, workerFailed, "");

      assertThat(resumed)
          .isEqualTo(
              before.toBuilder()
                  .setEpoch(before.getEpoch() + 1)
                  .clearLayerTokens()
                  .addAllLayerTokens(List.of(70, 64))
                  .build());
      assertThat(requireNonNull(first.attached.get(open.getSessionId())).getResume()).isTrue();
      assertThat(get(open)).isEqualTo(resumed);
    }
    assertThat(second.attached).isEmpty();
    assertThat(first.detaches).isEmpty();
  }

  @Test
  void aSessionMovesFromAWorkerThatIsGoneAndItsPagesStay() {
    Session open = open();
    second.layerTokens = List.of(64, 64);
    first.close();

    Session resumed = resume(open, true, "");

    assertThat(resumed.getWorkerTarget()).isEqualTo(second.target());
    assertThat(resumed.getEpoch()).isEqualTo(2);
    assertThat(resumed.getLayerTokensList()).containsExactly(64, 64);
    assertThat(second.attached).containsKey(open.getSessionId());
  }

  /** The caller could not reach the worker, but the coordinator can. */
  @Test
  void aWorkerThatHasLostItsLeaseIsLeft() {
    Session open = open();
    cluster.nowNs.addAndGet(LoopbackCluster.LEASE.toNanos());
    cluster.register("w2", second.target());

    Session resumed = resume(open, false, "");

    assertThat(resumed.getWorkerTarget()).isEqualTo(second.target());
    // It lives after all: it is told to free the session and to leave the pages alone.
    awaitDetach(first);
    DetachRequest told = first.detaches.getFirst();
    assertThat(told.getKeepPages()).isTrue();
    assertThat(told.getEpoch()).isEqualTo(1);
  }

  @Test
  void anOldEpochAndAnotherOwnerAreRefusedAndChangeNothing() {
    Session open = cluster.sessions().open(openRequest().toBuilder().setOwner("ann").build());
    Session resumed = resume(open, false, "");

    refused(Status.Code.FAILED_PRECONDITION, () -> resume(open, false, ""))
        .hasMessageContaining("epoch is 1")
        .hasMessageContaining("has epoch 2");
    Session bobs = resumed.toBuilder().setOwner("bob").build();
    for (Session wrong : List.of(bobs, resumed.toBuilder().clearOwner().build())) {
      String owner = "owner is '" + wrong.getOwner() + "'";
      refused(Status.Code.FAILED_PRECONDITION, () -> resume(wrong, true, ""))
          .hasMessageContaining(owner);
      refused(Status.Code.FAILED_PRECONDITION, () -> fork(wrong, "")).hasMessageContaining(owner);
      refused(Status.Code.FAILED_PRECONDITION, () -> closeSession(wrong))
          .hasMessageContaining(owner);
    }
    refused(
            Status.Code.INVALID_ARGUMENT,
            () -> resume(resumed.toBuilder().setOwner("x".repeat(65)).build(), false, ""))
        .hasMessageContaining("length of owner");

    assertThat(cluster.list()).containsExactly(resumed);
    assertThat(requireNonNull(first.attached.get(open.getSessionId())).getSession().getEpoch())
        .isEqualTo(2);
    assertThat(second.attached).isEmpty();
    closeSession(resumed);
  }

  @Test
  void aCallThatIsSentAgainIsDoneOnce() {
    OpenRequest request = openRequest().toBuilder().setRequestId("open-1").build();
    Session open = cluster.sessions().open(request);
    assertThat(cluster.sessions().open(request)).isEqualTo(open);

    Session child = fork(open, "fork-1");
    assertThat(fork(open, "fork-1")).isEqualTo(child);

    Session resumed = resume(open, false, "resume-1");
    assertThat(resume(open, false, "resume-1")).isEqualTo(resumed);
    refused(Status.Code.FAILED_PRECONDITION, () -> resume(open, false, "resume-2"));

    assertThat(cluster.list()).containsExactly(resumed, child);
    assertThat(first.attached).hasSize(2);
    assertThat(first.detaches).isEmpty();
    refused(
            Status.Code.INVALID_ARGUMENT,
            () -> cluster.sessions().open(request.toBuilder().setRequestId("no spaces").build()))
        .hasMessageContaining("request_id");
  }

  @Test
  void aResumeThatNoWorkerServesChangesNothing() {
    Session open = open();
    first.close();
    second.refusal = Status.RESOURCE_EXHAUSTED.withDescription("device memory is full");

    refused(Status.Code.RESOURCE_EXHAUSTED, () -> resume(open, true, "r"))
        .hasMessageContaining("device memory is full");

    assertThat(get(open)).isEqualTo(open);
    second.refusal = null;
    assertThat(resume(open, true, "r").getWorkerTarget()).isEqualTo(second.target());
  }

  /** An attempt that the coordinators could not agree on leaves a newer epoch at the worker. */
  @Test
  void anEpochThatTheWorkerKnowsAlreadyIsPassed() {
    Session open = open();
    first.attached.computeIfPresent(
        open.getSessionId(),
        (_, here) -> {
          var ahead = here.toBuilder();
          ahead.getSessionBuilder().setEpoch(3);
          return ahead.build();
        });

    assertThat(resume(open, false, "").getEpoch()).isEqualTo(4);
  }

  @Test
  void aForkKnowsWhoseItsFirstPagesAre() {
    first.sharedTokens = 128;
    Session open = open();
    Session child = fork(open, "");
    Session grandchild = fork(child, "");

    assertThat(open.getAncestorsCount()).isZero();
    assertThat(grandchild.getAncestorsList())
        .extracting(a -> a.getSessionId() + " " + a.getTokens())
        .containsExactly(open.getSessionId() + " 128", child.getSessionId() + " 128");
  }

  @Test
  void pagesStayAsLongAsSessionsOfTheSameDescentMayNeedThem() {
    first.sharedTokens = 128;
    Session parent = open();
    Session child = fork(parent, "");
    Session stranger = open();
    // Both at one worker that knows who uses what: it deletes what is the parent's alone.
    Session other = fork(parent, "");
    closeSession(other);
    assertThat(first.detaches.getLast().getKeepPages()).isFalse();

    // Resumed, so that no worker may know any more that the child begins with its pages.
    closeSession(resume(parent, false, ""));
    assertThat(first.detaches.getLast().getKeepPages()).isTrue();
    closeSession(resume(child, false, ""));
    assertThat(first.detaches.getLast().getKeepPages()).isFalse();
    closeSession(stranger);
    assertThat(second.detaches.getLast().getKeepPages()).isFalse();
  }

  /** It would come back with fewer tokens than are stored, and what it lacks is nowhere else. */
  @Test
  void aSessionWithAPromptIsNotResumedBeforeTiersHaveToldWhatTheyHold() {
    Session plain = open();
    OpenRequest.Builder request = openRequest().toBuilder();
    for (int i = 0; i < 64; i++) {
      request.addTokenIds(i);
    }
    Session prompted = cluster.sessions().open(request.build());
    String silent = second.target();
    second.close();
    var _ =
        cluster
            .cluster()
            .register(
                RegisterRequest.newBuilder()
                    .setNode(LoopbackCluster.node("t1", silent).toBuilder().setRole(Role.ROLE_TIER))
                    .build());

    refused(Status.Code.UNAVAILABLE, () -> resume(prompted, false, ""))
        .hasMessageContaining("not all cache tiers have told");
    assertThat(get(prompted)).isEqualTo(prompted);
    assertThat(resume(plain, false, "").getEpoch()).isEqualTo(2);
  }

  @Test
  void anIdleSessionIsClosedAndOneThatIsElsewhereIsFreed() {
    Session idle = open();
    Session elsewhere = open();
    assertThat(elsewhere.getWorkerTarget()).isEqualTo(second.target());
    Session resumed = resume(open(), false, "");
    String unknown = "5b0d1e60-0000-0000-0000-000000000000";

    HeartbeatResponse response =
        heartbeat(
            "w1",
            ref(idle.getSessionId(), 1),
            ref(elsewhere.getSessionId(), 1),
            // It has a newer epoch by now: it has just been used.
            ref(resumed.getSessionId(), 1),
            ref(unknown, 1));

    assertThat(response.getFreedSessionsList())
        .extracting(freed -> freed.getSessionId() + " " + freed.getKeepPages())
        .containsExactly(
            idle.getSessionId() + " false", elsewhere.getSessionId() + " true", unknown + " false");
    assertThat(cluster.list()).containsExactly(elsewhere, resumed);
    HeartbeatRequest.Builder tooMany = HeartbeatRequest.newBuilder().setNodeId("w1");
    for (int i = 0; i < 257; i++) {
      tooMany.addIdleSessions(ref(unknown, 1));
    }
    refused(Status.Code.INVALID_ARGUMENT, () -> cluster.cluster().heartbeat(tooMany.build()))
        .hasMessageContaining("idle_sessions is 257");
  }

  @Test
  void aSessionThatNoWorkerServesExpires() throws Exception {
    Session brief =
        cluster.sessions().open(openRequest().toBuilder().setIdleTimeoutMs(100).build());
    Session longer = open();
    cluster.nowNs.addAndGet(LoopbackCluster.LEASE.toNanos());
    assertThat(cluster.list()).hasSize(2);

    // The housekeeping looks several times a second; the test's time stands until it is set.
    long startNs = System.nanoTime();
    while (cluster.list().size() == 2) {
      cluster.nowNs.addAndGet(Duration.ofMillis(50).toNanos());
      assertThat(System.nanoTime() - startNs).isLessThan(Duration.ofSeconds(20).toNanos());
      TimeUnit.MILLISECONDS.sleep(10);
    }

    assertThat(cluster.list()).containsExactly(longer);
    refused(Status.Code.NOT_FOUND, () -> get(brief));
  }

  @Test
  void aWorkerThatDrainsGivesItsSessionsUp() {
    Session here = open();
    Session elsewhere = open();
    assertThat(elsewhere.getWorkerTarget()).isEqualTo(second.target());

    DrainResponse drained =
        cluster.cluster().drain(DrainRequest.newBuilder().setNodeId("w1").build());

    assertThat(drained.getSessions()).isZero();
    assertThat(first.attached).isEmpty();
    assertThat(first.detaches).singleElement().matches(DetachRequest::getKeepPages);
    assertThat(heartbeat("w1").getState()).isEqualTo(NodeState.NODE_STATE_DRAINING);
    for (int i = 0; i < 3; i++) {
      assertThat(open().getWorkerTarget()).isEqualTo(second.target());
    }
    assertThat(resume(here, false, "").getWorkerTarget()).isEqualTo(second.target());

    var _ =
        cluster.cluster().drain(DrainRequest.newBuilder().setNodeId("w1").setUndo(true).build());
    assertThat(open().getWorkerTarget()).isEqualTo(first.target());
    refused(
        Status.Code.NOT_FOUND,
        () -> cluster.cluster().drain(DrainRequest.newBuilder().setNodeId("w9").build()));
  }

  private static void awaitDetach(LoopbackWorker worker) {
    try {
      assertThat(worker.detached.poll(20, TimeUnit.SECONDS)).isNotNull();
    } catch (InterruptedException e) {
      throw new IllegalStateException(e);
    }
  }

  private HeartbeatResponse heartbeat(String nodeId, SessionRef... idle) {
    return cluster
        .cluster()
        .heartbeat(
            HeartbeatRequest.newBuilder()
                .setNodeId(nodeId)
                .addAllIdleSessions(List.of(idle))
                .build());
  }

  private static SessionRef ref(String id, long epoch) {
    return SessionRef.newBuilder().setSessionId(id).setEpoch(epoch).build();
  }

  private Session open() {
    return cluster.sessions().open(openRequest());
  }

  private Session get(Session session) {
    return cluster
        .sessions()
        .get(GetSessionRequest.newBuilder().setSessionId(session.getSessionId()).build());
  }

  private Session resume(Session session, boolean workerFailed, String requestId) {
    return cluster
        .sessions()
        .resume(
            ResumeRequest.newBuilder()
                .setSessionId(session.getSessionId())
                .setEpoch(session.getEpoch())
                .setOwner(session.getOwner())
                .setWorkerFailed(workerFailed)
                .setRequestId(requestId)
                .build());
  }

  private Session fork(Session session, String requestId) {
    return cluster
        .sessions()
        .fork(
            ForkRequest.newBuilder()
                .setSessionId(session.getSessionId())
                .setEpoch(session.getEpoch())
                .setOwner(session.getOwner())
                .setRequestId(requestId)
                .build());
  }

  private void closeSession(Session session) {
    var _ =
        cluster
            .sessions()
            .close(
                CloseRequest.newBuilder()
                    .setSessionId(session.getSessionId())
                    .setEpoch(session.getEpoch())
                    .setOwner(session.getOwner())
                    .build());
  }
}
