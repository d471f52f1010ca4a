package io.kvtier.coordinator.plan;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.kvtier.KvtierException;
import io.kvtier.rpc.PlanLimits;
import io.kvtier.v1.Geometry;
import io.kvtier.v1.HeadClass;
import io.kvtier.v1.HeadPlan;
import io.kvtier.v1.Plan;
import io.kvtier.v1.PlanMode;
import java.util.List;
import org.junit.jupiter.api.Test;

final class TailorPlannerTest {
  private static final Geometry TWO_BY_TWO = PlanSamples.geometry(2, 2, 64);

  /** Heads of layer 1 leave .15 and .3 beyond 5 % of the tokens: P is .225. */
  private static final List<ResidualCurve> CURVES =
      List.of(curve(.01f), curve(.35f), curve(.15f), curve(.3f));

  private static ResidualCurve curve(float residual) {
    return ResidualCurve.of("c", new int[] {205}, new float[] {residual}, 4096);
  }

  @Test
  void aLayerIsDenseAsAWholeWherePIsAboveAFifth() {
    Plan plan = TailorPlanner.plan(new PlanInputs(TWO_BY_TWO, 4096, 0, 0, 60, CURVES), 4096);

    PlanLimits.check(plan, TWO_BY_TWO, PlanMode.PLAN_MODE_TAILORKV);
    assertThat(plan.getMode()).isEqualTo(PlanMode.PLAN_MODE_TAILORKV);
    assertThat(plan.getHeadsList())
        .extracting(HeadPlan::getHeadClass)
        .containsExactly(
            HeadClass.HEAD_CLASS_SPARSE,
            HeadClass.HEAD_CLASS_SPARSE,
            HeadClass.HEAD_CLASS_DENSE,
            HeadClass.HEAD_CLASS_DENSE);
    assertThat(plan.getHeads(2).getBits()).isEqualTo(1);
    assertThat(plan.getHeads(2).getReason()).contains("0.225");
  }

  @Test
  void theDominantTokensAreWhatTheBytesLeave() {
    // Rows of 512 bytes; 2 layers x 64 of them always, and 2 x 8 channels x 2 heads x 2 bytes a
    // token.
    long always = 2 * 64 * 512 + 64 * 4096;
    Plan plan = bounded(always + 200 * 512, List.of(), 4096);

    assertThat(plan.getHeads(0).getDominantTokensMax()).isEqualTo(200);
    assertThat(plan.getDeviceBytes()).isEqualTo(always + 200 * 512);
    assertThat(plan.getHeadsList())
        .allSatisfy(head -> {
          // Of one buffer for both layers; and rows of 256 bytes and 8 channels of every token.
          assertThat(head.getDeviceBytes()).isEqualTo(200 * 256 / 2);
          assertThat(head.getFetchBytes()).isEqualTo(200 * 256 + 8 * 2 * 4096);
        });
  }

  @Test
  void denseLayersAreCountedBeforeTheDominantTokens() {
    // Layer 1 is dense: 128 exact rows of 512 bytes, and of each other token 256 bits and 8 bytes.
    long dense = 128 * 512 + (4096 - 128) * (256 / 8 + 4 * 4);
    long always = 64 * 512 + 64 * 4096;
    Plan plan = bounded(dense + always + 200 * 512, CURVES, 4096);
    assertThat(plan.getHeads(0).getDominantTokensMax()).isEqualTo(200);
    assertThat(plan.getHeads(2).getDeviceBytes()).isEqualTo(dense / 2);
    assertThat(plan.getDeviceBytes()).isEqualTo(dense + always + 200 * 512);
  }

  /** What it grows to, its buffers of channels must hold too. */
  @Test
  void theBytesAreEnoughForAsManyTokensAsTheSessionMayHave() {
    long always = 2 * 64 * 512 + 64 * 5000;
    Plan plan = bounded(always + 100 * 512, List.of(), 5000);
    assertThat(plan.getHeads(0).getDominantTokensMax()).isEqualTo(100);
    assertThat(plan.getDeviceBytes()).as("now").isEqualTo(always - 64 * 904 + 100 * 512);
  }

  @Test
  void fewerBytesThanTheMethodTakesAreRefused() {
    long least = 2 * 64 * 512 + 64 * 4096 + 16 * 512;
    assertThat(bounded(least, List.of(), 4096).getHeads(0).getDominantTokensMax()).isEqualTo(16);
    assertThatThrownBy(() -> bounded(least - 1, List.of(), 4096))
        .isInstanceOf(KvtierException.class)
        .hasMessageContaining("device_bytes_max is 335871 and TailorKV's method takes 335872")
        .hasMessageContaining("16 dominant tokens and 0 of 2 layers dense");
  }

  private static Plan bounded(long bytes, List<ResidualCurve> curves, int tokensMax) {
    return TailorPlanner.plan(new PlanInputs(TWO_BY_TWO, 4096, bytes, 0, 60, curves), tokensMax);
  }
}
