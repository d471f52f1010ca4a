package io.kvtier.integration;

import static io.kvtier.integration.Synthetic.KV_HEADS;
import static io.kvtier.integration.Synthetic.LAYERS;
import static io.kvtier.integration.WrongCall.invalid;
import static io.kvtier.integration.WrongCall.missing;
import static io.kvtier.integration.WrongCall.outOfOrder;
import static io.kvtier.integration.WrongCall.refused;
import static io.kvtier.integration.WrongPrefills.INVALID_OR_EXHAUSTED;
import static io.kvtier.integration.WrongPrefills.INVALID_OR_MISSING;
import static io.kvtier.integration.WrongPrefills.UNKNOWN_ID;

import com.google.protobuf.ByteString;
import io.grpc.Status.Code;
import io.kvtier.v1.CloseRequest;
import io.kvtier.v1.ForkRequest;
import io.kvtier.v1.Geometry;
import io.kvtier.v1.GetSessionRequest;
import io.kvtier.v1.HeadClass;
import io.kvtier.v1.HeadPlan;
import io.kvtier.v1.OpenRequest;
import io.kvtier.v1.Plan;
import io.kvtier.v1.PlanMode;
import java.util.ArrayList;
import java.util.EnumSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Consumer;

/** Everything that the Sessions service refuses. */
final class WrongOpens {
  private WrongOpens() {}

  static List<WrongCall> calls() {
    List<WrongCall> calls = new ArrayList<>();
    calls.addAll(opens());
    calls.addAll(others());
    return calls;
  }

  private static Geometry geometry(Consumer<Geometry.Builder> spoil) {
    Geometry.Builder geometry = Synthetic.geometry().toBuilder();
    spoil.accept(geometry);
    return geometry.build();
  }

  private static ByteString bytes(int length) {
    return ByteString.copyFrom(new byte[length]);
  }

  /** Geometries out of bounds; each key ends with what the refusal must mention. */
  static Map<String, Geometry> geometries() {
    Map<String, Geometry> wrong = new LinkedHashMap<>();
    wrong.put("layers: 0 512", geometry(g -> g.setLayers(0)));
    wrong.put("layers: 513 512", geometry(g -> g.setLayers(513)));
    wrong.put("layers: 4294967295 512", geometry(g -> g.setLayers(-1)));
    wrong.put("q_heads: 0 512", geometry(g -> g.setQHeads(0)));
    wrong.put("q_heads: 514 512", geometry(g -> g.setQHeads(514)));
    wrong.put("q_heads: 4294967294 512", geometry(g -> g.setQHeads(-2)));
    wrong.put("q_heads: 3 2", geometry(g -> g.setQHeads(3)));
    wrong.put("q_heads: 1 2", geometry(g -> g.setQHeads(1)));
    wrong.put("kv_heads: 0 128", geometry(g -> g.setKvHeads(0)));
    wrong.put("kv_heads: 129 128", geometry(g -> g.setKvHeads(129).setQHeads(258)));
    wrong.put("kv_heads: 4294967295 128", geometry(g -> g.setKvHeads(-1)));
    wrong.put("head_dim: 0 256", geometry(g -> g.setHeadDim(0)));
    wrong.put("head_dim: 258 256", geometry(g -> g.setHeadDim(258)));
    wrong.put("head_dim: 63 multiple", geometry(g -> g.setHeadDim(63)));
    wrong.put("head_dim: 1", geometry(g -> g.setHeadDim(1)));
    wrong.put("head_dim: 4294967294 256", geometry(g -> g.setHeadDim(-2)));
    wrong.put("kv_dtype unspecified: kv_dtype", geometry(g -> g.clearKvDtype()));
    wrong.put("kv_dtype: dtype", geometry(g -> g.setKvDtypeValue(7)));
    wrong.put("code_bits: 5 8", geometry(g -> g.setCodeBits(5)));
    wrong.put("code_bits: 4294967288 8", geometry(g -> g.setCodeBits(-8)));
    wrong.put("model_fingerprint: 0 16", geometry(g -> g.clearModelFingerprint()));
    wrong.put("model_fingerprint: 15 16", geometry(g -> g.setModelFingerprint(bytes(15))));
    wrong.put("model_fingerprint: 17 16", geometry(g -> g.setModelFingerprint(bytes(17))));
    return wrong;
  }

  private static Plan.Builder sparse() {
    Plan.Builder plan = Plan.newBuilder().setDominantTokensMin(64).setHotSetBytes(1 << 16);
    for (int i = 0; i < LAYERS * KV_HEADS; i++) {
      plan.addHeads(
          HeadPlan.newBuilder()
              .setLayer(i / KV_HEADS)
              .setKvHead(i % KV_HEADS)
              .setHeadClass(HeadClass.HEAD_CLASS_SPARSE)
              .setDominantTokensMax(128)
              .setResidualMass(.01f));
    }
    return plan;
  }

  private static Plan plan(Consumer<Plan.Builder> spoil) {
    Plan.Builder plan = sparse();
    spoil.accept(plan);
    return plan.build();
  }

  private static Plan head(Consumer<HeadPlan.Builder> spoil) {
    return plan(p -> spoil.accept(p.getHeadsBuilder(2)));
  }

  private static HeadPlan.Builder dense(HeadPlan.Builder head) {
    return head.setHeadClass(HeadClass.HEAD_CLASS_DENSE).setDominantTokensMax(0).setResidualMass(0);
  }

  private static void swap(Plan.Builder plan, int i, int j) {
    HeadPlan first = plan.getHeads(i);
    plan.setHeads(i, plan.getHeads(j)).setHeads(j, first);
  }

  /** Malformed plans; each key ends with what the refusal must mention. */
  static Map<String, Plan> plans() {
    Map<String, Plan> wrong = new LinkedHashMap<>();
    wrong.put("plan without heads: 0 4", plan(p -> p.clearHeads()));
    wrong.put("plan of a head too few: 3 4", plan(p -> p.removeHeads(3)));
    wrong.put("plan of a head too many: 5 4", plan(p -> p.addHeads(p.getHeads(3))));
    wrong.put("plan of KV heads in wrong order: heads[0]", plan(p -> swap(p, 0, 1)));
    wrong.put("plan of layers in wrong order: heads[0]", plan(p -> swap(p, 0, 2)));
    wrong.put("plan with a head twice: heads[3]", plan(p -> p.setHeads(3, p.getHeads(2))));
    wrong.put("plan with layer: 4294967295", head(h -> h.setLayer(-1)));
    wrong.put("plan with kv_head: 2", head(h -> h.setKvHead(2)));
    wrong.put("plan without class: head_class", head(h -> h.clearHeadClass()));
    wrong.put("plan of an unknown class: class", head(h -> h.setHeadClassValue(9)));
    wrong.put("sparse with dominant_tokens_max: 0", head(h -> h.setDominantTokensMax(0)));
    wrong.put(
        "sparse with dominant_tokens_max: 1048577 1048576",
        head(h -> h.setDominantTokensMax(1048577)));
    wrong.put(
        "sparse with dominant_tokens_max: 4294967295 1048576",
        head(h -> h.setDominantTokensMax(-1)));
    wrong.put("sparse with residual_mass: 2.0", head(h -> h.setResidualMass(2)));
    wrong.put("sparse with residual_mass: -0.5", head(h -> h.setResidualMass(-.5f)));
    wrong.put("sparse with residual_mass: NaN", head(h -> h.setResidualMass(Float.NaN)));
    wrong.put("head with predicted_residual: 2.0", head(h -> h.setPredictedResidual(2)));
    wrong.put("head with predicted_residual: NaN", head(h -> h.setPredictedResidual(Float.NaN)));
    wrong.put("dense with dominant_tokens_max: 128", head(h -> dense(h).setDominantTokensMax(128)));
    wrong.put("dense with residual_mass: 0.5", head(h -> dense(h).setResidualMass(.5f)));
    wrong.put("dense with bits: 0 4", head(h -> dense(h).setBits(4)));
    wrong.put("dense with bits out of all bounds: 0 9", head(h -> dense(h).setBits(9)));
    wrong.put("plan of another mode: 2", plan(p -> p.setMode(PlanMode.PLAN_MODE_TAILORKV)));
    wrong.put("dominant_tokens_min: 0", plan(p -> p.setDominantTokensMin(0)));
    wrong.put("dominant_tokens_min: 1048577 1048576", plan(p -> p.setDominantTokensMin(1048577)));
    return wrong;
  }

  private static WrongCall.Send open(Consumer<OpenRequest.Builder> spoil) {
    return (at, s) -> {
      OpenRequest.Builder request =
          OpenRequest.newBuilder().setGeometry(Synthetic.geometry()).setTokensMax(1000);
      spoil.accept(request);
      var _ = at.sessions().open(request.build());
    };
  }

  /** What follows the colon of a name, word by word, and the field before it. */
  private static String[] mentionsOf(String name) {
    return name.substring(name.indexOf(": ") + 2).split(" ", -1);
  }

  private static List<WrongCall> opens() {
    List<WrongCall> calls = new ArrayList<>();
    calls.add(invalid("no geometry", open(r -> r.clearGeometry())));
    calls.add(invalid("tokens_max 0", open(r -> r.setTokensMax(0)), "tokens_max", "0", "1048576"));
    calls.add(
        invalid("tokens_max 1048577", open(r -> r.setTokensMax(1048577)), "1048577", "1048576"));
    calls.add(invalid("tokens_max 2^32-1", open(r -> r.setTokensMax(-1)), "4294967295", "1048576"));
    for (Map.Entry<String, Geometry> wrong : geometries().entrySet()) {
      String name = wrong.getKey();
      calls.add(invalid(name, open(r -> r.setGeometry(wrong.getValue())), mentionsOf(name)));
    }
    for (Map.Entry<String, Plan> wrong : plans().entrySet()) {
      String name = wrong.getKey();
      calls.add(invalid(name, open(r -> r.setPlan(wrong.getValue())), mentionsOf(name)));
    }
    Plan endless = plan(p -> p.setHotSetBytes(-1));
    calls.add(refused("hot_set_bytes 2^64-1", INVALID_OR_EXHAUSTED, open(r -> r.setPlan(endless))));
    Plan talkative = head(h -> h.setReason("x".repeat(65 << 20)));
    calls.add(
        refused(
            "65 MiB",
            EnumSet.of(Code.RESOURCE_EXHAUSTED),
            open(r -> r.setPlan(talkative)),
            "67108864"));
    return calls;
  }

  private static WrongCall.Send fork(String id, long epoch) {
    return (at, s) -> {
      var _ = at.sessions().fork(ForkRequest.newBuilder().setSessionId(id).setEpoch(epoch).build());
    };
  }

  private static WrongCall.Send close(String id, long epoch) {
    return (at, s) -> {
      var _ =
          at.sessions().close(CloseRequest.newBuilder().setSessionId(id).setEpoch(epoch).build());
    };
  }

  private static WrongCall.Send get(String id) {
    return (at, s) -> {
      var _ = at.sessions().get(GetSessionRequest.newBuilder().setSessionId(id).build());
    };
  }

  private static List<WrongCall> others() {
    return List.of(
        missing("fork: unknown", fork(UNKNOWN_ID, 1), UNKNOWN_ID),
        refused("fork: no id", INVALID_OR_MISSING, fork("", 1)),
        outOfOrder(
            "fork: stale epoch",
            (at, s) -> fork(s.good.info().getSessionId(), s.good.info().getEpoch() - 1).to(at, s),
            "epoch"),
        missing("close: unknown", close(UNKNOWN_ID, 1), UNKNOWN_ID),
        refused("close: no id", INVALID_OR_MISSING, close("", 1)),
        outOfOrder(
            "close: stale epoch",
            (at, s) -> close(s.good.info().getSessionId(), s.good.info().getEpoch() - 1).to(at, s),
            "epoch"),
        missing("get: unknown", get(UNKNOWN_ID), UNKNOWN_ID),
        refused("get: no id", INVALID_OR_MISSING, get("")),
        refused("get: no UUID", INVALID_OR_MISSING, get("me"), "me"));
  }
}
