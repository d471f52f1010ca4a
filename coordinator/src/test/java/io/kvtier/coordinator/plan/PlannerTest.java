package io.kvtier.coordinator.plan;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.kvtier.KvtierException;
import io.kvtier.page.Residence;
import io.kvtier.rpc.GeometryLimits;
import io.kvtier.rpc.PlanLimits;
import io.kvtier.v1.AheadUse;
import io.kvtier.v1.Geometry;
import io.kvtier.v1.HeadClass;
import io.kvtier.v1.HeadPlan;
import io.kvtier.v1.Plan;
import io.kvtier.v1.PlanMode;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.api.Test;

final class PlannerTest {
  private static final Geometry TWO_BY_TWO = PlanSamples.geometry(2, 2, 64);
  private static final int TOKENS = 65_536;
  private static final int PAGES = 1023;
  private static final long FIXED = 1_000;

  /** Residual 1 % at 82 tokens. */
  private static final ResidualCurve NARROW = point(82, 0.01f);

  /** Residual 1 % at 12,100 tokens. */
  private static final ResidualCurve WIDE = point(12_100, 0.01f);

  @Test
  void theHeadThatNeedsMostTokensIsDenseFirst() {
    PlanInputs inputs = inputs(0, List.of(NARROW, WIDE, NARROW, NARROW));
    long allSketched = FIXED + 4 * inputs.headBytes(Residence.TWO_PLANES);
    long oneDense =
        allSketched + inputs.headBytes(Residence.DENSE) - inputs.headBytes(Residence.TWO_PLANES);
    // A twentieth of what lies beside the fixed bytes is kept for the hot set.
    Plan plan = plan(FIXED + (oneDense - FIXED) * 22 / 20, List.of(NARROW, WIDE, NARROW, NARROW));

    assertThat(plan.getHeads(1).getHeadClass()).isEqualTo(HeadClass.HEAD_CLASS_DENSE);
    assertThat(plan.getHeads(1).getReason()).startsWith("12,100 of 65,536 tokens leave 1 %: dense");
    assertThat(plan.getHeads(1).getFetchBytes()).isZero();
    for (int other : new int[] {0, 2, 3}) {
      HeadPlan head = plan.getHeads(other);
      assertThat(head.getHeadClass()).isEqualTo(HeadClass.HEAD_CLASS_SPARSE);
      assertThat(head.getSketchPlanes()).isEqualTo(2);
      assertThat(head.getDominantTokensMax()).isEqualTo(16_384);
      assertThat(head.getResidualMass()).isEqualTo(.01f);
      assertThat(head.getDeviceBytes()).isEqualTo(inputs.headBytes(Residence.TWO_PLANES));
      assertThat(head.getFetchBytes()).isPositive();
    }
  }

  /** What a head's queries chose alike says whether rows come ahead, and the reason says so. */
  @Test
  void overlapDecidesWhatIsFetchedAhead() {
    List<ResidualCurve> curves =
        List.of(
            NARROW.withOverlap("a", .69f),
            NARROW.withOverlap("b", .7f),
            NARROW,
            NARROW.withOverlap("d", 0));
    PlanInputs inputs = inputs(0, curves);
    long allSketched = FIXED + 4 * inputs.headBytes(Residence.TWO_PLANES);
    Plan plan = plan(FIXED + (allSketched - FIXED) * 21 / 20 + 100, curves);
    assertThat(plan.getHeadsList())
        .extracting(HeadPlan::getAhead)
        .containsExactly(
            AheadUse.AHEAD_USE_NOTHING,
            AheadUse.AHEAD_USE_LAST,
            AheadUse.AHEAD_USE_UNSPECIFIED,
            AheadUse.AHEAD_USE_NOTHING);
    assertThat(plan.getHeads(0).getReason())
        .endsWith("69 % were chosen the query before: not fetched ahead");
    assertThat(plan.getHeads(1).getReason())
        .endsWith("70 % were chosen the query before: fetched ahead");
    assertThat(plan.getHeads(1).getOverlap()).isEqualTo(.7f);
    assertThat(plan.getHeads(2).getReason()).doesNotContain("query before");
    PlanLimits.check(plan, TWO_BY_TWO, PlanMode.PLAN_MODE_KVTIER);
    Plan streamed = plan(FIXED + 1, curves);
    assertThat(streamed.getHeads(1).getAhead()).isEqualTo(AheadUse.AHEAD_USE_UNSPECIFIED);
    PlanLimits.check(streamed, TWO_BY_TWO, PlanMode.PLAN_MODE_KVTIER);
    assertThatThrownBy(() -> NARROW.withOverlap("n", Float.NaN))
        .isInstanceOf(KvtierException.class)
        .hasMessage("overlap of n is NaN; it must be 0..1");
  }

  /** From the fewest bytes on: streamed, then one plane, then two. */
  @Test
  void fewerBytesDemoteTwoPlanesToOneAndOneToNone() {
    List<ResidualCurve> curves = Collections.nCopies(4, NARROW);
    PlanInputs inputs = inputs(0, curves);

    assertThat(classes(plan(FIXED, curves))).containsOnly("STREAMED 0");
    long one = 4 * inputs.headBytes(Residence.ONE_PLANE);
    assertThat(classes(plan(FIXED + one * 22 / 20, curves))).contains("SPARSE 1");
    long two = 4 * inputs.headBytes(Residence.TWO_PLANES);
    assertThat(classes(plan(FIXED + two * 22 / 20, curves))).containsOnly("SPARSE 2");
    // A narrow head is sooner attended to by its sketch, however many bytes there are.
    assertThat(classes(plan(1L << 40, curves))).containsOnly("SPARSE 2");
  }

  /** A head whose scores by one plane are far off is streamed, as long as that takes no time. */
  @Test
  void onePlaneIsNoOptionWhereItsScoresErr() {
    List<ResidualCurve> curves =
        List.of(
            NARROW.withScoreError("a", 2.01f),
            NARROW.withScoreError("b", 2),
            NARROW,
            NARROW.withScoreError("d", 12));
    int tokens = 8_192;
    PlanInputs bare = new PlanInputs(TWO_BY_TWO, tokens, 0, FIXED, 127, curves);
    long one = 4 * bare.headBytes(Residence.ONE_PLANE);
    Plan plan =
        Planner.plan(new PlanInputs(TWO_BY_TWO, tokens, FIXED + one * 21 / 20, FIXED, 127, curves));
    assertThat(List.of(classes(plan).get(0), classes(plan).get(3))).doesNotContain("SPARSE 1");
    assertThat(List.of(classes(plan).get(1), classes(plan).get(2))).containsOnly("SPARSE 1");
    assertThat(plan.getHeadsList())
        .filteredOn(head -> head.getHeadClass() == HeadClass.HEAD_CLASS_STREAMED)
        .extracting(HeadPlan::getReason)
        .isNotEmpty()
        .allMatch(reason -> reason.contains("by one its scores err too far"));
    // Streaming a million tokens would take longer than all else.
    int many = 1 << 20;
    int pages = many / 64 - 1;
    PlanInputs wide = new PlanInputs(TWO_BY_TWO, many, 0, FIXED, pages, curves);
    long room = FIXED + 4 * wide.headBytes(Residence.ONE_PLANE) * 22 / 20;
    assertThat(classes(Planner.plan(new PlanInputs(TWO_BY_TWO, many, room, FIXED, pages, curves))))
        .contains("SPARSE 1");
    for (float wrong : new float[] {-.1f, 1001, Float.NaN}) {
      assertThatThrownBy(() -> NARROW.withScoreError("n", wrong))
          .isInstanceOf(KvtierException.class)
          .hasMessage("score_error of n is " + wrong + "; it must be 0..1000");
    }
  }

  /** Pages of eight bits cost dense and streamed heads twice as much, and sparse ones little. */
  @Test
  void pagesOfEightBitsAreCountedAsTheyAre() {
    Geometry finer = TWO_BY_TWO.toBuilder().setCodeBits(8).build();
    List<ResidualCurve> curves = List.of(NARROW, WIDE, NARROW, NARROW);
    PlanInputs four = new PlanInputs(TWO_BY_TWO, TOKENS, 0, FIXED, PAGES, curves);
    PlanInputs eight = new PlanInputs(finer, TOKENS, 0, FIXED, PAGES, curves);
    assertThat(eight.headBytes(Residence.TWO_PLANES))
        .isEqualTo(four.headBytes(Residence.TWO_PLANES));
    assertThat(eight.headBytes(Residence.DENSE) - four.headBytes(Residence.DENSE))
        .isEqualTo(PAGES * 64L * (2 * 32 + 2 * 2));
    long more = new HeadCosts(eight, 82, 0).of(Residence.TWO_PLANES).fetchBytes();
    long less = new HeadCosts(four, 82, 0).of(Residence.TWO_PLANES).fetchBytes();
    assertThat(more - less).isEqualTo(32 * (2 * 32 + 2 * 2));
  }

  /** Where fetching is slow bytes go to codes, where it is fast to rows that may recur. */
  @Test
  void ratesDecideWhatIsDense() {
    List<ResidualCurve> curves = List.of(NARROW, WIDE, NARROW, NARROW);
    PlanInputs inputs = inputs(0, curves);
    long oneDense = 3 * inputs.headBytes(Residence.TWO_PLANES) + inputs.headBytes(Residence.DENSE);
    PlanInputs bounded = inputs(FIXED + oneDense * 22 / 20, curves);
    Plan usual = Planner.plan(bounded);
    assertThat(Planner.plan(bounded.withRates(PlanRates.told(0, 0)))).isEqualTo(usual);
    assertThat(usual.getFetchRate()).isEqualTo(1500);
    assertThat(usual.getAttendRate()).isEqualTo(8000);
    assertThat(classes(usual)).containsExactly("SPARSE 2", "DENSE 0", "SPARSE 2", "SPARSE 2");

    Plan fast = Planner.plan(bounded.withRates(PlanRates.told(65_536, 0)));
    assertThat(classes(fast)).containsOnly("SPARSE 2");
    assertThat(fast.getHotSetBytes()).isGreaterThan(usual.getHotSetBytes());
    assertThat(fast.getFetchRate()).isEqualTo(65_536);

    PlanInputs ample = inputs(1L << 40, curves);
    assertThat(classes(Planner.plan(ample)))
        .containsExactly("SPARSE 2", "DENSE 0", "SPARSE 2", "SPARSE 2");
    Plan slow = Planner.plan(ample.withRates(PlanRates.told(8, 0)));
    assertThat(classes(slow)).containsOnly("DENSE 0");
    assertThat(Planner.plan(ample.withRates(PlanRates.told(8, 0)))).isEqualTo(slow);
    // A device that attends slowly does better to choose.
    assertThat(classes(Planner.plan(ample.withRates(PlanRates.told(0, 256)))))
        .containsOnly("SPARSE 2");
    assertThatThrownBy(() -> PlanRates.told(0, 1_000_001))
        .isInstanceOf(KvtierException.class)
        .hasMessage("attend_rate is 1000001; it must be 0..1000000");
  }

  /** A row in the hot set is longer than one that is fetched, and something has to find it. */
  @Test
  void theHotSetHasRoomForAllRowsAndNoMore() {
    List<ResidualCurve> curves = List.of(NARROW, NARROW, NARROW, NARROW);
    long rows = 4L * PAGES * 64;
    assertThat(plan(1L << 40, curves).getHotSetBytes()).isBetween(rows * 88, rows * 90);
  }

  @Test
  void withoutAProfileHeadsAreSparseByDefault() {
    Plan plan = plan(0, List.of());

    assertThat(plan.getHeadsList())
        .hasSize(4)
        .allSatisfy(head -> assertThat(head.getReason()).startsWith("no profile: "));
    assertThat(plan.getDeviceBytes()).isLessThanOrEqualTo(TOKENS * 4L * 64);
  }

  @Test
  void theCapFollowsTheNeedOfTheHead() {
    assertThat(capOf(65_536, 200)).isEqualTo(16_384);
    assertThat(capOf(65_536, 9_000)).isEqualTo(18_000);
  }

  @Test
  void contextsWithoutPagesHavePlansToo() {
    Plan plan = Planner.plan(new PlanInputs(TWO_BY_TWO, 10, 0, 0, 0, List.of()));

    assertThat(plan.getDominantTokensMin()).isEqualTo(10);
    PlanLimits.check(plan, TWO_BY_TWO, PlanMode.PLAN_MODE_KVTIER);
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
  void theDefaultBudgetIsAQuarterOrAllSketches() {
    // 65,536 tokens x 4 heads x 64 dims x 4 bytes / 4.
    assertThat(inputs(0, List.of()).budgetBytes()).isEqualTo(16 << 20);
    PlanInputs large = new PlanInputs(TWO_BY_TWO, 64, 0, 20_000, 1, List.of());
    assertThat(large.budgetBytes()).isEqualTo(20_000 + 4 * large.headBytes(Residence.TWO_PLANES));
  }

  /** Of the session's bytes and the worker's the fewer, and never less than any plan takes. */
  @Test
  void aPlanTakesNoMoreThanTheWorkerHas() {
    PlanInputs inputs = inputs(1_000_000, List.of());
    long fixed = inputs.fixedDeviceBytes();
    assertThat(inputs.withDeviceBytesThere(2_000_000).budgetBytes()).isEqualTo(1_000_000);
    assertThat(inputs.withDeviceBytesThere(500_000).budgetBytes()).isEqualTo(500_000);
    assertThat(inputs.withDeviceBytesThere(1).budgetBytes()).isEqualTo(fixed);
    assertThat(inputs(0, List.of()).withDeviceBytesThere(500_000).budgetBytes()).isEqualTo(500_000);
    Plan plan = Planner.plan(inputs(0, List.of()).withDeviceBytesThere(500_000));
    assertThat(plan.getDeviceBytes()).isBetween(fixed, 500_000L);
  }

  @Test
  void theLargestInputsDoNotOverflow() {
    Geometry largest = PlanSamples.geometry(512, 128, 256);
    PlanInputs inputs =
        new PlanInputs(largest, 1 << 20, Long.MAX_VALUE, 1L << 50, (1 << 20) / 64, List.of());

    assertThat(inputs.fullBytes()).isEqualTo(1L << 46);
    assertThat(Planner.plan(inputs).getDeviceBytes()).isPositive();
  }

  @Test
  void inputsOutOfTheirBoundsAreRefused() {
    assertThatThrownBy(() -> new PlanInputs(TWO_BY_TWO, 0, 0, 0, 0, List.of()))
        .hasMessageContaining("tokens");
    assertThatThrownBy(() -> new PlanInputs(TWO_BY_TWO, 1, 0, -1, 0, List.of()))
        .hasMessageContaining("fixed_device_bytes");
    assertThatThrownBy(() -> new PlanInputs(TWO_BY_TWO, 640, 0, 0, 11, List.of()))
        .hasMessageContaining("pages is 11; it must be 0..10");
    assertThatThrownBy(() -> new PlanInputs(TWO_BY_TWO, 1, 0, 0, 0, List.of(NARROW)))
        .hasMessageContaining("2 x 2 = 4");
  }

  /** Within the budget, valid, the same twice, and never less of a head for more bytes. */
  @Test
  void plansHoldTheirProperties() {
    long seed = System.nanoTime();
    System.out.println("PlannerTest seed " + seed);
    Random random = new Random(seed);
    for (int round = 0; round < 200; round++) {
      Geometry geometry = PlanSamples.geometry(1 + random.nextInt(8), 1 + random.nextInt(4), 64);
      int tokens = 64 + random.nextInt(20_000);
      int pages = random.nextInt(tokens / 64 + 1);
      long fixedBytes = random.nextInt(1_000_000);
      List<ResidualCurve> curves = new ArrayList<>();
      for (int i = 0; i < GeometryLimits.heads(geometry); i++) {
        curves.add(PlanSamples.curve(random, tokens));
      }
      long budget = Math.max(1, fixedBytes);
      List<HeadPlan> before = null;
      for (int step = 0; step < 20; step++) {
        PlanInputs inputs = new PlanInputs(geometry, tokens, budget, fixedBytes, pages, curves);
        Plan plan = Planner.plan(inputs);
        PlanLimits.check(plan, geometry, PlanMode.PLAN_MODE_KVTIER);
        assertThat(plan.getDeviceBytes()).isLessThanOrEqualTo(budget);
        long heads = plan.getHeadsList().stream().mapToLong(HeadPlan::getDeviceBytes).sum();
        assertThat(plan.getDeviceBytes()).isEqualTo(fixedBytes + heads + plan.getHotSetBytes());
        assertThat(Planner.plan(inputs)).isEqualTo(plan);
        for (int i = 0; before != null && i < before.size(); i++) {
          assertThat(plan.getHeads(i).getDeviceBytes())
              .isGreaterThanOrEqualTo(before.get(i).getDeviceBytes());
        }
        before = plan.getHeadsList();
        budget += random.nextInt(1_000_000);
      }
    }
  }

  private static PlanInputs inputs(long deviceBytesMax, List<ResidualCurve> curves) {
    return new PlanInputs(TWO_BY_TWO, TOKENS, deviceBytesMax, FIXED, PAGES, curves);
  }

  private static Plan plan(long deviceBytesMax, List<ResidualCurve> curves) {
    return Planner.plan(inputs(deviceBytesMax, curves));
  }

  private static List<String> classes(Plan plan) {
    return plan.getHeadsList().stream()
        .map(head ->
            head.getHeadClass().name().replace("HEAD_CLASS_", "") + " " + head.getSketchPlanes())
        .toList();
  }

  /** The cap of a head that is given just enough for two planes. */
  private static int capOf(int tokens, int needed) {
    Geometry one = PlanSamples.geometry(1, 1, 64);
    ResidualCurve curve =
        ResidualCurve.of("c", new int[] {needed}, new float[] {0.01f}, Math.max(tokens, needed));
    int pages = tokens / 64;
    for (long budget = 1; budget < 8_000_000; budget += 10_000) {
      Plan plan = Planner.plan(new PlanInputs(one, tokens, budget, 0, pages, List.of(curve)));
      if (plan.getHeads(0).getHeadClass() == HeadClass.HEAD_CLASS_SPARSE) {
        return plan.getHeads(0).getDominantTokensMax();
      }
    }
    throw new AssertionError("never sparse");
  }

  private static ResidualCurve point(int k, float residual) {
    return ResidualCurve.of("n", new int[] {k}, new float[] {residual}, TOKENS);
  }
}
