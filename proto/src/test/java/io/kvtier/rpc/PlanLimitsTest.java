package io.kvtier.rpc;

import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.kvtier.KvtierException;
import io.kvtier.v1.Geometry;
import io.kvtier.v1.HeadClass;
import io.kvtier.v1.HeadPlan;
import io.kvtier.v1.Plan;
import java.util.function.Consumer;
import org.junit.jupiter.api.Test;

final class PlanLimitsTest {
  private static final Geometry GEOMETRY =
      Geometry.newBuilder().setLayers(2).setQHeads(4).setKvHeads(2).setHeadDim(64).build();

  @Test
  void aPlanWithinItsBoundsIsTaken() {
    PlanLimits.check(valid().build(), GEOMETRY);
    PlanLimits.check(valid().setTokens(0).setDominantTokensMin(1 << 20).build(), GEOMETRY);
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

  private static void refusedHead(Consumer<HeadPlan.Builder> change, String message) {
    refused(plan -> change.accept(plan.getHeadsBuilder(2)), message);
  }

  private static void refused(Consumer<Plan.Builder> change, String message) {
    Plan.Builder plan = valid();
    change.accept(plan);
    assertThatThrownBy(() -> PlanLimits.check(plan.build(), GEOMETRY))
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
