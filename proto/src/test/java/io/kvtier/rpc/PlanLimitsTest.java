package io.kvtier.rpc;

import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.kvtier.KvtierException;
import io.kvtier.v1.AheadUse;
import io.kvtier.v1.Geometry;
import io.kvtier.v1.HeadClass;
import io.kvtier.v1.HeadPlan;
import io.kvtier.v1.NearUse;
import io.kvtier.v1.Plan;
import io.kvtier.v1.PlanMode;
import java.util.function.Consumer;
import org.junit.jupiter.api.Test;

final class PlanLimitsTest {
  private static final Geometry GEOMETRY =
      Geometry.newBuilder().setLayers(2).setQHeads(4).setKvHeads(2).setHeadDim(64).build();

  @Test
  void aPlanWithinItsBoundsIsTaken() {
    taken(valid(), PlanMode.PLAN_MODE_UNSPECIFIED);
    taken(valid().setTokens(0).setDominantTokensMin(1 << 20), PlanMode.PLAN_MODE_KVTIER);
    taken(valid().setMode(PlanMode.PLAN_MODE_KVTIER), PlanMode.PLAN_MODE_UNSPECIFIED);
    taken(tailorKv(), PlanMode.PLAN_MODE_TAILORKV);
    taken(tailorKv().setMode(PlanMode.PLAN_MODE_TAILORKV), PlanMode.PLAN_MODE_TAILORKV);
  }

  @Test
  void headsMustBeAllAndInOrder() {
    refused(plan -> plan.removeHeads(3), "plan has 3 heads");
    refused(plan -> plan.addHeads(plan.getHeads(3)), "plan has 5 heads");
    refused(
        plan -> plan.setHeads(1, plan.getHeads(2)),
        "plan.heads[1] is of layer 1, KV head 0; it must be of layer 0, KV head 1");
    refusedHead(head -> head.setLayer(-1), "layer 4294967295");
  }

  @Test
  void everyValueHasItsBound() {
    refused(plan -> plan.setDominantTokensMin(0), "dominant_tokens_min is 0");
    refused(plan -> plan.setDominantTokensMin((1 << 20) + 1), "dominant_tokens_min");
    refused(plan -> plan.setHotSetBytes(-1), "hot_set_bytes is 18446744073709551615");
    refused(plan -> plan.setDeviceBytes(-1), "device_bytes");
    refused(plan -> plan.setTokens((1 << 20) + 1), "plan.tokens");
    refused(plan -> plan.setFetchRate(1_000_001), "fetch_rate is 1000001; it must be 0..1000000");
    refused(plan -> plan.setAttendRate(-1), "attend_rate is 4294967295");
    refusedHead(HeadPlan.Builder::clearHeadClass, "head_class is 0");
    refusedHead(head -> head.setHeadClassValue(7), "head_class is 7");
    refusedHead(head -> head.setDominantTokensMax(0), "dominant_tokens_max is 0");
    refusedHead(head -> head.setDominantTokensMax((1 << 20) + 1), "dominant_tokens_max");
    refusedHead(head -> head.setResidualMass(Float.NaN), "residual_mass is NaN");
    refusedHead(head -> head.setResidualMass(1.5f), "residual_mass is 1.5");
    refusedHead(head -> head.setPredictedResidual(-0.5f), "predicted_residual is -0.5");
    refusedHead(head -> head.setReason("x".repeat(1025)), "reason is 1025");
    refusedHead(head -> head.setHeadClass(HeadClass.HEAD_CLASS_DENSE), "all must be 0");
  }

  /** A plan is honoured, or refused: nothing in it is passed over. */
  @Test
  void whatTheSessionsMethodDoesNotKnowIsRefused() {
    refused(plan -> plan.setMode(PlanMode.PLAN_MODE_TAILORKV), "plan.mode is 2");
    refused(plan -> plan.setModeValue(7), "plan.mode is 7");
    for (int bits : new int[] {1, 4, 9, -1}) {
      refusedHead(
          head -> head.clear().setLayer(1).setHeadClass(HeadClass.HEAD_CLASS_DENSE).setBits(bits),
          "layer 1, KV head 0: plan.heads[2].bits is " + Integer.toUnsignedString(bits));
    }
    refusedHead(head -> head.setBits(2), "layer 1, KV head 0: plan.heads[2].bits is 2");

    for (int bits : new int[] {0, 3, 4, 8, 9, -1}) {
      refusedTailorKv(
          plan -> plan.getHeadsBuilderList().subList(0, 2).forEach(head -> head.setBits(bits)),
          "layer 0, KV head 0: plan.heads[0].bits of a dense layer in TailorKV mode is "
              + Integer.toUnsignedString(bits),
          "1..2");
    }
    refusedTailorKv(
        plan -> plan.getHeadsBuilder(3).setBits(1),
        "layer 1, KV head 1: plan.heads[3].bits of a sparse layer in TailorKV mode is 1");
    refusedTailorKv(
        plan ->
            plan.getHeadsBuilder(2)
                .setHeadClass(HeadClass.HEAD_CLASS_STREAMED)
                .clearDominantTokensMax(),
        "layer 1, KV head 0: plan.heads[2].head_class is HEAD_CLASS_STREAMED (3)");
    refusedTailorKv(
        plan -> plan.setHeads(1, plan.getHeads(3).toBuilder().setLayer(0)),
        "layer 0, KV head 1: plan.heads[1] has head_class 2, bits 0",
        "first head 1, 1",
        "the same");
    refusedTailorKv(plan -> plan.getHeadsBuilder(1).setBits(2), "plan.heads[1] has", "bits 2");
    refusedTailorKv(
        plan -> plan.getHeadsBuilder(3).setDominantTokensMax(11), "dominant_tokens_max 11");
    refusedTailorKv(plan -> plan.getHeadsBuilder(2).setResidualMass(.5f), "residual_mass 0.5");
    refusedTailorKv(plan -> plan.getHeadsBuilder(2).setSketchPlanes(1), "sketch_planes 1");
    refusedTailorKv(plan -> plan.getHeadsBuilder(2).setAhead(AheadUse.AHEAD_USE_LAST), "ahead 2");
    refusedTailorKv(plan -> plan.setMode(PlanMode.PLAN_MODE_KVTIER), "plan.mode is 1");
    refusedTailorKv(plan -> plan.setHotSetBytes(5), "hot_set_bytes is 5");
    refusedTailorKv(plan -> plan.setNear(NearUse.NEAR_USE_NEVER), "near is 1");
  }

  private static void taken(Plan.Builder plan, PlanMode mode) {
    PlanLimits.check(plan.build(), GEOMETRY, mode);
  }

  private static void refusedTailorKv(Consumer<Plan.Builder> change, String... mentions) {
    Plan.Builder plan = tailorKv();
    change.accept(plan);
    assertThatThrownBy(() -> PlanLimits.check(plan.build(), GEOMETRY, PlanMode.PLAN_MODE_TAILORKV))
        .isInstanceOf(KvtierException.class)
        .hasMessageContainingAll(mentions);
  }

  /** Layer 0 dense with one bit, layer 1 sparse. */
  private static Plan.Builder tailorKv() {
    Plan.Builder plan = Plan.newBuilder().setDominantTokensMin(1);
    for (int i = 0; i < 4; i++) {
      HeadPlan.Builder head = plan.addHeadsBuilder().setLayer(i / 2).setKvHead(i % 2);
      if (i < 2) {
        head.setHeadClass(HeadClass.HEAD_CLASS_DENSE).setBits(1);
      } else {
        head.setHeadClass(HeadClass.HEAD_CLASS_SPARSE).setDominantTokensMax(10);
      }
    }
    return plan;
  }

  private static void refusedHead(Consumer<HeadPlan.Builder> change, String message) {
    refused(plan -> change.accept(plan.getHeadsBuilder(2)), message);
  }

  private static void refused(Consumer<Plan.Builder> change, String message) {
    Plan.Builder plan = valid();
    change.accept(plan);
    assertThatThrownBy(() -> PlanLimits.check(plan.build(), GEOMETRY, PlanMode.PLAN_MODE_KVTIER))
        .isInstanceOf(KvtierException.class)
        .hasMessageContaining(message);
  }

  private static Plan.Builder valid() {
    Plan.Builder plan = Plan.newBuilder().setDominantTokensMin(1);
    for (int i = 0; i < 4; i++) {
      plan.addHeads(
          HeadPlan.newBuilder()
              .setLayer(i / 2)
              .setKvHead(i % 2)
              .setHeadClass(HeadClass.HEAD_CLASS_SPARSE)
              .setDominantTokensMax(10)
              .setResidualMass(0.5f));
    }
    return plan;
  }
}
