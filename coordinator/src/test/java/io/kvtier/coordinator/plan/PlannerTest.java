package io.kvtier.coordinator.plan;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.kvtier.KvtierException;
import io.kvtier.rpc.GeometryLimits;
import io.kvtier.rpc.PlanLimits;
import io.kvtier.v1.Geometry;
import io.kvtier.v1.HeadClass;
import io.kvtier.v1.HeadPlan;
import io.kvtier.v1.Plan;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.api.Test;

final class PlannerTest {
  private static final Geometry TWO_BY_TWO = PlanSamples.geometry(2, 2, 64);

  /** Residual 1 % at 82 tokens. */
  private static final ResidualCurve NARROW = point(82, 0.01f);

  /** Residual 1 % at 1,210 tokens, 2 % at 512. */
  private static final ResidualCurve WIDE =
      ResidualCurve.of("w", new int[] {512, 1210}, new float[] {0.02f, 0.01f}, 4096);

  /** Residual 1 % at 2,000 tokens, 10 % at 512. */
  private static final ResidualCurve WIDER =
      ResidualCurve.of("w", new int[] {512, 2000}, new float[] {0.1f, 0.01f}, 4096);

  @Test
  void narrowHeadsAreSparseAndWideOnesDenseWhereTheyFit() {
    Plan plan = plan(10_000, List.of(NARROW, WIDE, NARROW, WIDER));

    assertThat(plan.getHeads(0))
        .isEqualTo(
            HeadPlan.newBuilder()
                .setHeadClass(HeadClass.HEAD_CLASS_SPARSE)
                .setDominantTokensMax(256)
                .setResidualMass(0.01f)
                .setPredictedResidual((float) NARROW.residualAt(256))
                .setReason("82 tokens leave 1 %: sparse, up to 256")
                .build());
    assertThat(plan.getHeads(1))
        .isEqualTo(
            HeadPlan.newBuilder()
                .setKvHead(1)
                .setHeadClass(HeadClass.HEAD_CLASS_DENSE)
                .setReason("needs 1,210 of 4,096 tokens for 1 % residual: dense")
                .build());
    assertThat(plan.getHeads(3).getHeadClass()).isEqualTo(HeadClass.HEAD_CLASS_DENSE);
    assertThat(plan.getDominantTokensMin()).isEqualTo(64);
    assertThat(plan.getTokens()).isEqualTo(4096);
    // 5 % of 1,000 bytes for each of the two sparse heads.
    assertThat(plan.getHotSetBytes()).isEqualTo(100);
    assertThat(plan.getDeviceBytes()).isEqualTo(1_000 + 100 + 2 * 1_000);
  }

  @Test
  void theHeadWithTheHighestResidualIsDenseFirst() {
    // 1,000 fixed, 200 for a hot set of four sparse heads, one dense head of 1,000.
    Plan plan = plan(2_200, List.of(NARROW, WIDE, NARROW, WIDER));

    assertThat(plan.getHeads(3).getHeadClass()).isEqualTo(HeadClass.HEAD_CLASS_DENSE);
    assertThat(plan.getHeads(1).getHeadClass()).isEqualTo(HeadClass.HEAD_CLASS_SPARSE);
    assertThat(plan.getHeads(1).getDominantTokensMax()).isEqualTo(512);
    assertThat(plan.getHeads(1).getPredictedResidual()).isEqualTo(0.02f);
    assertThat(plan.getHeads(1).getReason())
        .isEqualTo(
            "needs 1,210 of 4,096 tokens for 1 % residual, no room for it dense: sparse, up to"
                + " 512");
    assertThat(denseHeads(plan(2_199, List.of(NARROW, WIDE, NARROW, WIDER)))).isZero();
  }

  @Test
  void withoutAProfileEveryHeadIsSparse() {
    Plan plan = plan(1_000_000, List.of());

    assertThat(plan.getHeadsList())
        .hasSize(4)
        .allSatisfy(head -> {
          assertThat(head.getHeadClass()).isEqualTo(HeadClass.HEAD_CLASS_SPARSE);
          assertThat(head.getDominantTokensMax()).isEqualTo(512);
          assertThat(head.getReason()).isEqualTo("no profile: sparse, up to 512");
        });
  }

  @Test
  void theCapStaysWithinItsBounds() {
    assertThat(capOf(4096, 200)).isEqualTo(400);
    assertThat(capOf(4096, 300)).isEqualTo(512);
    assertThat(capOf(4096, 1)).isEqualTo(256);
    assertThat(capOf(100, 1)).isEqualTo(100);
    assertThat(capOf(1, 1)).isGreaterThanOrEqualTo(1);
  }

  @Test
  void shortContextsHaveSmallMinima() {
    Plan plan = Planner.plan(new PlanInputs(TWO_BY_TWO, 10, 0, 0, 0, List.of()));

    assertThat(plan.getDominantTokensMin()).isEqualTo(10);
    PlanLimits.check(plan, TWO_BY_TWO);
  }

  @Test
  void aBudgetBelowTheFixedBytesIsRefusedWithBoth() {
    assertThatThrownBy(() -> plan(999, List.of()))
        .isInstanceOfSatisfying(
            KvtierException.class,
            e -> assertThat(e.code()).isEqualTo(KvtierException.Code.EXHAUSTED))
        .hasMessageContaining("999")
        .hasMessageContaining("1000")
        .hasMessageContaining("open the session with at least as many");
    assertThat(plan(1_000, List.of()).getDeviceBytes()).isEqualTo(1_000);
  }

  @Test
  void theDefaultBudgetIsAQuarterOrTheFixedBytes() {
    // 64 tokens x 4 heads x 64 dims x 4 bytes = 65,536.
    PlanInputs small = new PlanInputs(TWO_BY_TWO, 64, 0, 100, 1, List.of());
    assertThat(small.budgetBytes()).isEqualTo(16_384);
    PlanInputs large = new PlanInputs(TWO_BY_TWO, 64, 0, 20_000, 1, List.of());
    assertThat(large.budgetBytes()).isEqualTo(20_000);
    assertThat(Planner.plan(large).getDeviceBytes()).isEqualTo(20_000);
  }

  @Test
  void theLargestInputsDoNotOverflow() {
    Geometry largest = PlanSamples.geometry(512, 128, 256);
    PlanInputs inputs =
        new PlanInputs(largest, 1 << 20, Long.MAX_VALUE, 1L << 50, 1L << 40, List.of());

    assertThat(inputs.fullBytes()).isEqualTo(1L << 46);
    assertThat(Planner.plan(inputs).getDeviceBytes()).isPositive();
  }

  @Test
  void inputsOutOfTheirBoundsAreRefused() {
    assertThatThrownBy(() -> new PlanInputs(TWO_BY_TWO, 0, 0, 0, 0, List.of()))
        .hasMessageContaining("tokens");
    assertThatThrownBy(() -> new PlanInputs(TWO_BY_TWO, 1, 0, -1, 0, List.of()))
        .hasMessageContaining("fixed_device_bytes");
    assertThatThrownBy(() -> new PlanInputs(TWO_BY_TWO, 1, 0, 0, 1L << 41, List.of()))
        .hasMessageContaining("dense_head_bytes");
    assertThatThrownBy(() -> new PlanInputs(TWO_BY_TWO, 1, 0, 0, 0, List.of(NARROW)))
        .hasMessageContaining("2 x 2 = 4");
  }

  /** Within the budget, valid, the same twice, and never fewer dense heads for more bytes. */
  @Test
  void plansHoldTheirProperties() {
    long seed = System.nanoTime();
    System.out.println("PlannerTest seed " + seed);
    Random random = new Random(seed);
    for (int round = 0; round < 300; round++) {
      Geometry geometry = PlanSamples.geometry(1 + random.nextInt(8), 1 + random.nextInt(4), 64);
      int tokens = 1 + random.nextInt(20_000);
      long fixedBytes = random.nextInt(1_000_000);
      long denseBytes = random.nextInt(100_000);
      List<ResidualCurve> curves = new ArrayList<>();
      for (int i = 0; i < GeometryLimits.heads(geometry); i++) {
        curves.add(PlanSamples.curve(random, tokens));
      }
      long budget = Math.max(1, fixedBytes);
      int denseBefore = 0;
      for (int step = 0; step < 20; step++) {
        PlanInputs inputs =
            new PlanInputs(geometry, tokens, budget, fixedBytes, denseBytes, curves);
        Plan plan = Planner.plan(inputs);
        PlanLimits.check(plan, geometry);
        assertThat(plan.getDeviceBytes()).isLessThanOrEqualTo(budget);
        assertThat(plan.getHotSetBytes()).isLessThanOrEqualTo((budget - fixedBytes) / 2);
        assertThat(Planner.plan(inputs)).isEqualTo(plan);
        assertThat(denseHeads(plan)).isGreaterThanOrEqualTo(denseBefore);
        denseBefore = denseHeads(plan);
        budget += random.nextInt(200_000);
      }
    }
  }

  private static Plan plan(long deviceBytesMax, List<ResidualCurve> curves) {
    return Planner.plan(new PlanInputs(TWO_BY_TWO, 4096, deviceBytesMax, 1_000, 1_000, curves));
  }

  private static int capOf(int tokens, int needed) {
    Geometry one = PlanSamples.geometry(1, 1, 64);
    ResidualCurve curve =
        ResidualCurve.of("c", new int[] {needed}, new float[] {0.01f}, Math.max(tokens, needed));
    return Planner.plan(new PlanInputs(one, tokens, 0, 0, Long.MAX_VALUE >>> 23, List.of(curve)))
        .getHeads(0)
        .getDominantTokensMax();
  }

  private static int denseHeads(Plan plan) {
    return Math.toIntExact(
        plan.getHeadsList().stream()
            .filter(head -> head.getHeadClass() == HeadClass.HEAD_CLASS_DENSE)
            .count());
  }

  private static ResidualCurve point(int k, float residual) {
    return ResidualCurve.of("n", new int[] {k}, new float[] {residual}, 4096);
  }
}
