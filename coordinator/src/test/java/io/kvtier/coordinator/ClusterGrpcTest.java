package io.kvtier.coordinator;

import static io.kvtier.coordinator.LoopbackCluster.node;
import static io.kvtier.coordinator.LoopbackCluster.openRequest;
import static io.kvtier.coordinator.LoopbackCluster.refused;
import static org.assertj.core.api.Assertions.assertThat;

import io.grpc.Status;
import io.kvtier.v1.CurvePoint;
import io.kvtier.v1.GetSessionRequest;
import io.kvtier.v1.HeadClass;
import io.kvtier.v1.HeadPlan;
import io.kvtier.v1.HeadProfile;
import io.kvtier.v1.HeartbeatRequest;
import io.kvtier.v1.MakePlanRequest;
import io.kvtier.v1.MembershipRequest;
import io.kvtier.v1.MembershipResponse;
import io.kvtier.v1.Node;
import io.kvtier.v1.Plan;
import io.kvtier.v1.RegisterRequest;
import io.kvtier.v1.RegisterResponse;
import io.kvtier.v1.Role;
import io.kvtier.v1.Session;
import java.time.Duration;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.function.Consumer;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

final class ClusterGrpcTest {
  private final LoopbackCluster cluster = new LoopbackCluster(8, Duration.ofSeconds(10));
  private final LoopbackWorker worker = new LoopbackWorker();

  @AfterEach
  void close() {
    cluster.close();
    worker.close();
  }

  @Test
  void aNodeIsAMemberWhileItsLeaseHolds() {
    Node tier = node("t1", "127.0.0.1:7001").toBuilder().setRole(Role.ROLE_TIER).build();
    RegisterResponse joined =
        cluster.cluster().register(RegisterRequest.newBuilder().setNode(tier).build());
    assertThat(joined.getLeaseMs()).isEqualTo(15_000);
    assertThat(joined.getMembershipEpoch()).isEqualTo(1);

    cluster.nowNs.addAndGet(LoopbackCluster.LEASE.toNanos() - 1);
    heartbeat("t1");
    cluster.nowNs.addAndGet(LoopbackCluster.LEASE.toNanos() - 1);
    assertThat(membership().getNodesList()).containsExactly(tier);

    cluster.nowNs.incrementAndGet();
    assertThat(membership().getNodesList()).isEmpty();
    assertThat(membership().getMembershipEpoch()).isEqualTo(2);
    refused(Status.Code.NOT_FOUND, () -> heartbeat("t1")).hasMessageContaining("node t1");
  }

  @Test
  void wrongNodesAreRefusedAndChangeNothing() {
    cluster.register("w1", worker.target());
    MembershipResponse before = membership();

    refused(
            Status.Code.INVALID_ARGUMENT,
            () -> cluster.cluster().register(RegisterRequest.getDefaultInstance()))
        .hasMessageContaining("node is absent");
    refused(Status.Code.INVALID_ARGUMENT, () -> cluster.register("no spaces", "h:1"))
        .hasMessageContaining("[A-Za-z0-9._-]");
    refused(Status.Code.INVALID_ARGUMENT, () -> cluster.register("w2", "nowhere"))
        .hasMessageContaining("host:port");
    refused(Status.Code.INVALID_ARGUMENT, () -> heartbeat("")).hasMessageContaining("node_id");
    refused(Status.Code.NOT_FOUND, () -> heartbeat("w2")).hasMessageContaining("register again");

    assertThat(membership()).isEqualTo(before);
  }

  @Test
  void aPlanIsMadeAndStored() {
    Session session = open(openRequest().getDeviceBytesMax());

    Plan plan = cluster.cluster().makePlan(planRequest(session).build());

    assertThat(plan.getHeadsList())
        .extracting(head -> head.getReason().substring(0, head.getReason().indexOf(':')))
        .containsExactly(
            "82 of 4,096 tokens leave 1 %",
            "1,210 of 4,096 tokens leave 1 %",
            "82 of 4,096 tokens leave 1 %",
            "82 of 4,096 tokens leave 1 %");
    assertThat(cluster.list()).containsExactly(session.toBuilder().setPlan(plan).build());
    assertThat(get(session).getPlan()).isEqualTo(plan);
    assertThat(cluster.cluster().makePlan(planRequest(session).clearHeads().clearQueries().build()))
        .isNotEqualTo(plan);
  }

  @Test
  void aPlanMadeByHandIsKept() {
    cluster.register("w1", worker.target());
    Plan.Builder hand = Plan.newBuilder().setDominantTokensMin(1);
    for (int i = 0; i < 4; i++) {
      hand.addHeads(
          HeadPlan.newBuilder()
              .setLayer(i / 2)
              .setKvHead(i % 2)
              .setHeadClass(HeadClass.HEAD_CLASS_DENSE));
    }
    Session session =
        cluster.sessions().open(openRequest().toBuilder().setPlan(hand.build()).build());

    assertThat(cluster.cluster().makePlan(planRequest(session).build())).isEqualTo(hand.build());
    assertThat(get(session)).isEqualTo(session);
  }

  @Test
  void aBudgetBelowTheFixedBytesIsExhausted() {
    Session session = open(99);

    refused(
            Status.Code.RESOURCE_EXHAUSTED,
            () -> cluster.cluster().makePlan(planRequest(session).build()))
        .hasMessageContaining("device_bytes_max is 99")
        .hasMessageContaining("4096 tokens take 100");
    assertThat(cluster.list()).containsExactly(session);
  }

  @Test
  void everyWrongMakePlanIsRefusedAndChangesNothing() {
    Session session = open(0);
    Map<String, Consumer<MakePlanRequest.Builder>> wrong = new LinkedHashMap<>();
    wrong.put("tokens is 0", request -> request.setTokens(0));
    wrong.put("tokens is 4097; it must be 1..4096", request -> request.setTokens(4097));
    wrong.put("heads has 3 entries", request -> request.removeHeads(3));
    wrong.put(
        "heads[1] is of layer 0, KV head 0", request -> request.setHeads(1, request.getHeads(0)));
    wrong.put("points of heads[2].curve is 0", request -> request.getHeadsBuilder(2).clearCurve());
    wrong.put(
        "residual of heads[3].curve[0] is NaN",
        request -> request.getHeadsBuilder(3).getCurveBuilder(0).setResidual(Float.NaN));
    wrong.put("fixed_device_bytes", request -> request.setFixedDeviceBytes(-1));
    wrong.put("queries is 0; it must be 1..64", request -> request.setQueries(0));
    wrong.put("queries is 65; it must be 1..64", request -> request.setQueries(65));
    wrong.put("queries is 32; it must be 0..0", request -> request.clearHeads());
    wrong.put("pages", request -> request.setPages(1 << 20));
    wrong.put(
        "fetch_rate is 1000001; it must be 0..1000000", request -> request.setFetchRate(1_000_001));
    wrong.put("attend_rate is 4294967295", request -> request.setAttendRate(-1));

    wrong.forEach((message, change) -> {
      MakePlanRequest.Builder request = planRequest(session);
      change.accept(request);
      refused(Status.Code.INVALID_ARGUMENT, () -> cluster.cluster().makePlan(request.build()))
          .hasMessageContaining(message);
    });
    refused(
            Status.Code.FAILED_PRECONDITION,
            () -> cluster.cluster().makePlan(planRequest(session).setEpoch(0).build()))
        .hasMessageContaining("epoch is 0")
        .hasMessageContaining("has epoch 1");
    refused(
            Status.Code.NOT_FOUND,
            () -> cluster.cluster().makePlan(planRequest(session).setSessionId("nobody").build()))
        .hasMessageContaining("nobody");

    assertThat(cluster.list()).containsExactly(session);
  }

  private Session open(long deviceBytesMax) {
    cluster.register("w1", worker.target());
    return cluster
        .sessions()
        .open(openRequest().toBuilder().setDeviceBytesMax(deviceBytesMax).build());
  }

  private Session get(Session session) {
    return cluster
        .sessions()
        .get(GetSessionRequest.newBuilder().setSessionId(session.getSessionId()).build());
  }

  private MembershipResponse membership() {
    return cluster.cluster().membership(MembershipRequest.getDefaultInstance());
  }

  private void heartbeat(String nodeId) {
    var _ = cluster.cluster().heartbeat(HeartbeatRequest.newBuilder().setNodeId(nodeId).build());
  }

  /** Four heads, of which the second needs many tokens. */
  private static MakePlanRequest.Builder planRequest(Session session) {
    MakePlanRequest.Builder request =
        MakePlanRequest.newBuilder()
            .setSessionId(session.getSessionId())
            .setEpoch(session.getEpoch())
            .setTokens(4096)
            .setFixedDeviceBytes(100)
            .setQueries(32)
            .setPages(1);
    for (int i = 0; i < 4; i++) {
      request.addHeads(
          HeadProfile.newBuilder()
              .setLayer(i / 2)
              .setKvHead(i % 2)
              .addCurve(CurvePoint.newBuilder().setK(i == 1 ? 1210 : 82).setResidual(0.01f)));
    }
    return request;
  }
}
