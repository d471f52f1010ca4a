package io.kvtier.coordinator;

import static io.kvtier.coordinator.LoopbackCluster.openRequest;
import static io.kvtier.coordinator.LoopbackCluster.refused;
import static java.util.Objects.requireNonNull;
import static org.assertj.core.api.Assertions.assertThat;

import com.google.protobuf.ByteString;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.kvtier.v1.AttachRequest;
import io.kvtier.v1.CloseRequest;
import io.kvtier.v1.ForkRequest;
import io.kvtier.v1.Geometry;
import io.kvtier.v1.GetSessionRequest;
import io.kvtier.v1.HeadClass;
import io.kvtier.v1.HeadPlan;
import io.kvtier.v1.OpenRequest;
import io.kvtier.v1.Plan;
import io.kvtier.v1.Session;
import java.time.Duration;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

final class SessionsGrpcTest {
  private final LoopbackCluster cluster = new LoopbackCluster(3, Duration.ofSeconds(10));
  private final LoopbackWorker worker = new LoopbackWorker();

  @AfterEach
  void close() {
    cluster.close();
    worker.close();
  }

  @Test
  void aSessionIsOpenedOnAWorkerToldAndClosed() {
    cluster.register("w1", worker.target());

    Session session = cluster.sessions().open(openRequest());

    assertThat(session.getEpoch()).isEqualTo(1);
    assertThat(UUID.fromString(session.getSessionId())).isNotNull();
    assertThat(session.getWorkerTarget()).isEqualTo(worker.target());
    assertThat(session.getGeometry()).isEqualTo(openRequest().getGeometry());
    assertThat(session.getTokensMax()).isEqualTo(4096);
    assertThat(session.hasPlan()).isFalse();
    assertThat(attachOf(session).getSession()).isEqualTo(session);
    assertThat(get(session.getSessionId())).isEqualTo(session);
    assertThat(cluster.list()).containsExactly(session);

    closeSession(session);
    assertThat(worker.attached).isEmpty();
    assertThat(cluster.list()).isEmpty();
    refused(Status.Code.NOT_FOUND, () -> closeSession(session))
        .hasMessageContaining(session.getSessionId());
  }

  @Test
  void aForkStartsOnTheSameWorkerWithTheSamePlan() {
    cluster.register("w1", worker.target());
    Plan plan = plan();
    Session parent = cluster.sessions().open(openRequest().toBuilder().setPlan(plan).build());

    Session child = fork(parent.getSessionId(), 1);

    assertThat(child)
        .isEqualTo(parent.toBuilder().setSessionId(child.getSessionId()).build())
        .isNotEqualTo(parent);
    assertThat(attachOf(child).getForkOf()).isEqualTo(parent.getSessionId());
    assertThat(cluster.list()).containsExactly(parent, child);
    closeSession(parent);
    assertThat(cluster.list()).containsExactly(child);
  }

  @Test
  void sessionsSpreadOverTheWorkers() {
    try (LoopbackWorker other = new LoopbackWorker()) {
      cluster.register("w1", worker.target());
      cluster.register("w2", other.target());

      Session first = cluster.sessions().open(openRequest());
      Session second = cluster.sessions().open(openRequest());
      closeSession(first);
      Session third = cluster.sessions().open(openRequest());

      assertThat(List.of(first, second, third))
          .extracting(Session::getWorkerTarget)
          .containsExactly(worker.target(), other.target(), worker.target());
    }
  }

  @Test
  void everyWrongOpenIsRefusedAndChangesNothing() {
    cluster.register("w1", worker.target());
    Session open = cluster.sessions().open(openRequest());
    Map<String, Consumer<OpenRequest.Builder>> wrong = new LinkedHashMap<>();
    wrong.put("geometry is absent", OpenRequest.Builder::clearGeometry);
    wrong.put("layers is 0", geometry(g -> g.setLayers(0)));
    wrong.put("layers is 513", geometry(g -> g.setLayers(513)));
    wrong.put("layers is 4294967295", geometry(g -> g.setLayers(-1)));
    wrong.put("q_heads is 0", geometry(g -> g.setQHeads(0)));
    wrong.put("q_heads is 514", geometry(g -> g.setQHeads(514)));
    wrong.put("kv_heads is 0", geometry(g -> g.setKvHeads(0)));
    wrong.put("kv_heads is 129", geometry(g -> g.setKvHeads(129)));
    wrong.put("q_heads is 5; it must be a multiple of", geometry(g -> g.setQHeads(5)));
    wrong.put("head_dim is 0", geometry(g -> g.setHeadDim(0)));
    wrong.put("head_dim is 258", geometry(g -> g.setHeadDim(258)));
    wrong.put("head_dim is 63; it must be a multiple of 16", geometry(g -> g.setHeadDim(63)));
    wrong.put("kv_dtype is 0", geometry(Geometry.Builder::clearKvDtype));
    wrong.put("kv_dtype is 9", geometry(g -> g.setKvDtypeValue(9)));
    wrong.put(
        "model_fingerprint has 15 bytes",
        geometry(g -> g.setModelFingerprint(ByteString.copyFrom(new byte[15]))));
    wrong.put("tokens_max is 0", request -> request.setTokensMax(0));
    wrong.put("tokens_max is 1048577", request -> request.setTokensMax((1 << 20) + 1));
    wrong.put("device_bytes_max is 18446744073709551615", request -> request.setDeviceBytesMax(-1));
    wrong.put("plan has 0 heads", request -> request.setPlan(Plan.getDefaultInstance()));

    wrong.forEach((message, change) -> {
      OpenRequest.Builder request = openRequest().toBuilder();
      change.accept(request);
      refused(Status.Code.INVALID_ARGUMENT, () -> cluster.sessions().open(request.build()))
          .hasMessageContaining(message);
    });

    assertThat(cluster.list()).containsExactly(open);
    assertThat(worker.attached).hasSize(1);
  }

  @Test
  void unknownSessionsAndOtherEpochsAreRefusedAndChangeNothing() {
    cluster.register("w1", worker.target());
    Session open = cluster.sessions().open(openRequest());
    String id = open.getSessionId();

    for (long epoch : new long[] {0, 2, -1}) {
      String both = "epoch is " + Long.toUnsignedString(epoch) + " and session " + id;
      refused(Status.Code.FAILED_PRECONDITION, () -> fork(id, epoch)).hasMessageContaining(both);
      refused(
              Status.Code.FAILED_PRECONDITION,
              () -> closeSession(open.toBuilder().setEpoch(epoch).build()))
          .hasMessageContaining(both)
          .hasMessageContaining("has epoch 1");
    }
    refused(Status.Code.NOT_FOUND, () -> fork("nobody", 1)).hasMessageContaining("nobody");
    refused(Status.Code.NOT_FOUND, () -> get("nobody")).hasMessageContaining("nobody");
    refused(
            Status.Code.NOT_FOUND,
            () -> closeSession(open.toBuilder().setSessionId("nobody").build()))
        .hasMessageContaining("nobody");
    refused(Status.Code.INVALID_ARGUMENT, () -> get("")).hasMessageContaining("session_id");

    assertThat(cluster.list()).containsExactly(open);
    assertThat(worker.attached).hasSize(1);
    assertThat(worker.detached).isEmpty();
  }

  @Test
  void aFullTableIsExhausted() {
    cluster.register("w1", worker.target());
    for (int i = 0; i < 3; i++) {
      var _ = cluster.sessions().open(openRequest());
    }
    List<Session> full = cluster.list();

    refused(Status.Code.RESOURCE_EXHAUSTED, () -> cluster.sessions().open(openRequest()))
        .hasMessageContaining("sessions_max is 3");
    refused(Status.Code.RESOURCE_EXHAUSTED, () -> fork(full.getFirst().getSessionId(), 1));
    assertThat(cluster.list()).isEqualTo(full);
    closeSession(full.getFirst());
    assertThat(cluster.sessions().open(openRequest()).getEpoch()).isEqualTo(1);
  }

  @Test
  void withoutAWorkerItSaysWhatToDo() {
    refused(Status.Code.UNAVAILABLE, () -> cluster.sessions().open(openRequest()))
        .hasMessageContaining("no worker is registered; start one");

    cluster.register("w1", worker.target());
    cluster.nowNs.addAndGet(LoopbackCluster.LEASE.toNanos());
    refused(Status.Code.UNAVAILABLE, () -> cluster.sessions().open(openRequest()))
        .hasMessageContaining("no worker");
    assertThat(cluster.list()).isEmpty();
  }

  @Test
  void aWorkersRefusalReachesTheCallerAndLeavesNoSession() throws Exception {
    cluster.register("w1", worker.target());
    worker.refusal = Status.RESOURCE_EXHAUSTED.withDescription("device memory is full");

    refused(Status.Code.RESOURCE_EXHAUSTED, () -> cluster.sessions().open(openRequest()))
        .hasMessageContaining(worker.target())
        .hasMessageContaining("device memory is full");

    assertThat(cluster.list()).isEmpty();
    assertThat(worker.detached.poll(20, TimeUnit.SECONDS)).isNotNull();
  }

  @Test
  void anotherWorkerTakesTheSessionWhenOneIsGone() {
    try (LoopbackWorker gone = new LoopbackWorker()) {
      cluster.register("w0", gone.target());
      cluster.register("w1", worker.target());
    }

    Session session = cluster.sessions().open(openRequest());

    assertThat(session.getWorkerTarget()).isEqualTo(worker.target());
    assertThat(cluster.list()).containsExactly(session);
  }

  @Test
  void aLostWorkerFailsTheForkButNotTheClose() {
    Session session;
    try (LoopbackWorker gone = new LoopbackWorker()) {
      cluster.register("w0", gone.target());
      session = cluster.sessions().open(openRequest());
    }

    refused(Status.Code.UNAVAILABLE, () -> fork(session.getSessionId(), 1))
        .hasMessageContaining(session.getWorkerTarget());
    assertThat(cluster.list()).containsExactly(session);
    closeSession(session);
    assertThat(cluster.list()).isEmpty();
  }

  @Test
  void aWorkerThatReturnsOnTheSameTargetServesAtOnce() {
    LoopbackWorker before = new LoopbackWorker();
    cluster.register("w0", before.target());
    before.close();
    refused(Status.Code.UNAVAILABLE, () -> cluster.sessions().open(openRequest()));

    try (LoopbackWorker after = new LoopbackWorker(before.port())) {
      cluster.register("w0", after.target());
      Session session = openSoon();
      assertThat(after.attached).containsKey(session.getSessionId());
    }
  }

  @Test
  void aSilentWorkerIsUnavailableAndIsToldToForget() throws Exception {
    try (LoopbackCluster impatient = new LoopbackCluster(3, Duration.ofMillis(300))) {
      impatient.register("w1", worker.target());
      worker.mode = LoopbackWorker.Mode.SILENT;

      refused(Status.Code.UNAVAILABLE, () -> impatient.sessions().open(openRequest()))
          .hasMessageContaining("did not answer in time");

      assertThat(impatient.list()).isEmpty();
      assertThat(worker.detached.poll(20, TimeUnit.SECONDS)).isNotNull();
      assertThat(worker.attached).isEmpty();
    }
  }

  /** The channel fails calls until its connection stands; each failed Open leaves nothing. */
  private Session openSoon() {
    long startNs = System.nanoTime();
    while (true) {
      try {
        return cluster.sessions().open(openRequest());
      } catch (StatusRuntimeException e) {
        assertThat(e.getStatus().getCode()).isEqualTo(Status.Code.UNAVAILABLE);
        assertThat(Duration.ofNanos(System.nanoTime() - startNs))
            .as(e.getMessage())
            .isLessThan(Duration.ofSeconds(20));
      }
    }
  }

  private AttachRequest attachOf(Session session) {
    return requireNonNull(worker.attached.get(session.getSessionId()));
  }

  private Session fork(String id, long epoch) {
    return cluster
        .sessions()
        .fork(ForkRequest.newBuilder().setSessionId(id).setEpoch(epoch).build());
  }

  private Session get(String id) {
    return cluster.sessions().get(GetSessionRequest.newBuilder().setSessionId(id).build());
  }

  private void closeSession(Session session) {
    var _ =
        cluster
            .sessions()
            .close(
                CloseRequest.newBuilder()
                    .setSessionId(session.getSessionId())
                    .setEpoch(session.getEpoch())
                    .build());
  }

  private static Consumer<OpenRequest.Builder> geometry(Consumer<Geometry.Builder> change) {
    return request -> change.accept(request.getGeometryBuilder());
  }

  private static Plan plan() {
    Plan.Builder plan = Plan.newBuilder().setDominantTokensMin(64);
    for (int i = 0; i < 4; i++) {
      plan.addHeads(
          HeadPlan.newBuilder()
              .setLayer(i / 2)
              .setKvHead(i % 2)
              .setHeadClass(HeadClass.HEAD_CLASS_DENSE));
    }
    return plan.build();
  }
}
