package io.kvtier.integration;

import static io.kvtier.integration.Quartet.TOKENS;
import static io.kvtier.integration.Quartet.TOKENS_MAX;
import static io.kvtier.integration.Synthetic.KV_HEADS;
import static io.kvtier.integration.Synthetic.LAYERS;
import static io.kvtier.integration.WrongCall.invalid;
import static io.kvtier.integration.WrongCall.missing;
import static io.kvtier.integration.WrongCall.outOfOrder;
import static io.kvtier.integration.WrongCall.refused;
import static io.kvtier.integration.WrongPrefills.INVALID_OR_MISSING;
import static io.kvtier.integration.WrongPrefills.UNKNOWN_ID;

import io.kvtier.v1.CurvePoint;
import io.kvtier.v1.HeadProfile;
import io.kvtier.v1.HeartbeatRequest;
import io.kvtier.v1.MakePlanRequest;
import io.kvtier.v1.Node;
import io.kvtier.v1.ProfilesRequest;
import io.kvtier.v1.RegisterRequest;
import io.kvtier.v1.Role;
import java.util.ArrayList;
import java.util.List;
import java.util.function.Consumer;

/** Everything that the Cluster service refuses. */
final class WrongCluster {
  private WrongCluster() {}

  static List<WrongCall> calls() {
    List<WrongCall> calls = new ArrayList<>();
    calls.addAll(registers());
    calls.addAll(plans());
    return calls;
  }

  private static WrongCall.Send register(Consumer<Node.Builder> spoil) {
    Node.Builder node =
        Node.newBuilder()
            .setNodeId("another")
            .setRole(Role.ROLE_TIER)
            .setTarget("127.0.0.1:1")
            .setBytesMax(1 << 20);
    spoil.accept(node);
    RegisterRequest request = RegisterRequest.newBuilder().setNode(node).build();
    return (at, s) -> {
      var _ = at.cluster().register(request);
    };
  }

  private static WrongCall.Send heartbeat(String nodeId) {
    return (at, s) -> {
      var _ = at.cluster().heartbeat(HeartbeatRequest.newBuilder().setNodeId(nodeId).build());
    };
  }

  private static List<WrongCall> registers() {
    List<WrongCall> calls = new ArrayList<>();
    calls.add(
        invalid(
            "register: no node",
            (at, s) -> at.cluster().register(RegisterRequest.getDefaultInstance())));
    calls.add(invalid("register: no id", register(n -> n.clearNodeId()), "node_id", "64"));
    calls.add(
        invalid("register: id of 65", register(n -> n.setNodeId("n".repeat(65))), "65", "64"));
    for (String id : List.of("a b", "a/b", "a\nb", "caf\u00e9", "a\0")) {
      calls.add(
          invalid(
              "register: id with " + (int) id.charAt(id.length() - 1),
              register(n -> n.setNodeId(id)),
              "node_id"));
    }
    calls.add(invalid("register: no role", register(n -> n.clearRole()), "role"));
    calls.add(invalid("register: unknown role", register(n -> n.setRoleValue(9)), "role"));
    calls.add(invalid("register: no target", register(n -> n.clearTarget()), "target"));
    for (String target : List.of("localhost", ":7400", "localhost:", "localhost:x", "h:70000")) {
      calls.add(invalid("register: target " + target, register(n -> n.setTarget(target)), target));
    }
    calls.add(missing("heartbeat: unknown", heartbeat("nobody"), "nobody"));
    calls.add(refused("heartbeat: no id", INVALID_OR_MISSING, heartbeat("")));
    return calls;
  }

  private static CurvePoint.Builder point(int k, float residual) {
    return CurvePoint.newBuilder().setK(k).setResidual(residual);
  }

  private static WrongCall.Send makePlan(Consumer<MakePlanRequest.Builder> spoil) {
    return (at, s) -> {
      MakePlanRequest.Builder request =
          MakePlanRequest.newBuilder()
              .setSessionId(s.good.info().getSessionId())
              .setEpoch(s.good.info().getEpoch())
              .setTokens(TOKENS)
              .setFixedDeviceBytes(1 << 16)
              .setQueries(32)
              .setPages(0);
      for (int i = 0; i < LAYERS * KV_HEADS; i++) {
        request.addHeads(
            HeadProfile.newBuilder()
                .setLayer(i / KV_HEADS)
                .setKvHead(i % KV_HEADS)
                .addCurve(point(16, .5f))
                .addCurve(point(64, .1f)));
      }
      spoil.accept(request);
      var _ = at.cluster().makePlan(request.build());
    };
  }

  private static WrongCall.Send head(Consumer<HeadProfile.Builder> spoil) {
    return makePlan(r -> spoil.accept(r.getHeadsBuilder(2)));
  }

  private static HeadProfile.Builder curve(HeadProfile.Builder head, int points) {
    head.clearCurve();
    for (int k = 1; k <= points; k++) {
      head.addCurve(point(k, .5f));
    }
    return head;
  }

  private static List<WrongCall> plans() {
    List<WrongCall> calls = new ArrayList<>();
    calls.add(missing("plan: unknown", makePlan(r -> r.setSessionId(UNKNOWN_ID)), UNKNOWN_ID));
    calls.add(refused("plan: no id", INVALID_OR_MISSING, makePlan(r -> r.clearSessionId())));
    calls.add(
        outOfOrder("plan: stale epoch", makePlan(r -> r.setEpoch(r.getEpoch() - 1)), "epoch"));
    calls.add(invalid("plan: overlap above 1", head(h -> h.setOverlap(1.5f)), "overlap", "1.5"));
    calls.add(invalid("plan: 0 tokens", makePlan(r -> r.setTokens(0)), "tokens", "0"));
    calls.add(
        invalid(
            "plan: beyond tokens_max", makePlan(r -> r.setTokens(TOKENS_MAX + 1)), "4141", "4140"));
    calls.add(invalid("plan: 2^32-1 tokens", makePlan(r -> r.setTokens(-1)), "4294967295", "4140"));
    calls.add(invalid("plan: no queries", makePlan(r -> r.setQueries(0)), "queries", "1..64"));
    calls.add(
        invalid("plan: 2^32-1 queries", makePlan(r -> r.setQueries(-1)), "4294967295", "1..64"));
    calls.add(
        invalid(
            "profiles at 2^20+1 tokens",
            (at, s) -> {
              ProfilesRequest request =
                  ProfilesRequest.newBuilder().setTokens((1 << 20) + 1).build();
              var _ = at.cluster().profiles(request);
            },
            "1048577",
            "1048576"));
    calls.add(invalid("plan: a head too few", makePlan(r -> r.removeHeads(3)), "3", "4"));
    calls.add(invalid("plan: a head too many", makePlan(r -> r.addHeads(r.getHeads(3))), "5", "4"));
    calls.add(
        invalid("plan: a head twice", makePlan(r -> r.setHeads(3, r.getHeads(2))), "heads[3]"));
    calls.add(invalid("plan: layer 2^32-1", head(h -> h.setLayer(-1)), "4294967295"));
    calls.add(invalid("plan: kv_head 2", head(h -> h.setKvHead(2)), "2"));
    calls.add(invalid("plan: no curve", head(h -> h.clearCurve()), "0", "32"));
    calls.add(invalid("plan: curve of 33", head(h -> curve(h, 33)), "33", "32"));
    calls.add(invalid("plan: falling k", head(h -> h.setCurve(1, point(8, .1f))), "k", "8"));
    calls.add(invalid("plan: equal k", head(h -> h.setCurve(1, point(16, .1f))), "k", "16"));
    calls.add(invalid("plan: residual 2", head(h -> h.setCurve(0, point(16, 2))), "2.0"));
    calls.add(invalid("plan: residual -1", head(h -> h.setCurve(0, point(16, -1))), "-1.0"));
    calls.add(invalid("plan: residual NaN", head(h -> h.setCurve(0, point(16, Float.NaN))), "NaN"));
    return calls;
  }
}
