package io.kvtier.coordinator.plan;

import io.kvtier.attention.RowForm;
import io.kvtier.coordinator.plan.HeadCosts.Option;
import io.kvtier.page.PageLayout;
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
import java.util.Comparator;
import java.util.List;
import java.util.Locale;
import java.util.PriorityQueue;

/**
 * Makes plans; a pure function of its inputs.
 *
 * <p>Every head starts with nothing on the device, streamed: that is always right and always slow.
 * Bytes then go where a byte saves most time, head by head, from one worthwhile residence to the
 * next ({@link HeadCosts}), until the next step does not fit; a part is kept back for the hot set.
 * More bytes never give a head less.
 */
public final class Planner {
  /** Attention mass that a sparse head may leave to the estimate. */
  static final float RESIDUAL_MASS = 0.01f;

  static final int DOMINANT_TOKENS_MIN = 64;

  /** A cap on dominant tokens is never below this where there are as many. */
  static final int DOMINANT_TOKENS_CAP_MIN = 256;

  /** A cap is at least this share of the tokens: single queries need far more than the mean. */
  private static final int DOMINANT_TOKENS_CAP_SHARE = 4;

  private static final int DOMINANT_TOKENS_MARGIN = 2;

  /** Without a profile a head is taken to need this share of the tokens. */
  private static final int NEEDED_SHARE = 64;

  /** The hot set gets this share of what is left beside the fixed bytes, and all that is over. */
  private static final int HOT_SET_SHARE = 20;

  /** Most that finding a row of the hot set takes: its key, its marks, its part of a table. */
  private static final int HOT_ROW_TABLE_BYTES = 20;

  private static final int NO_PROFILE = -1;

  /**
   * One head.
   *
   * @param needed tokens for the residual target, or {@link #NO_PROFILE}
   * @param cap dominant tokens at most
   * @param predicted residual at {@code cap}; 0 without a profile
   * @param overlap of successive queries' choices, or {@link ResidualCurve#UNMEASURED}
   */
  private record Head(int needed, int cap, double predicted, float overlap, HeadCosts costs) {
    AheadUse ahead() {
      if (overlap == ResidualCurve.UNMEASURED) {
        return AheadUse.AHEAD_USE_UNSPECIFIED;
      }
      return overlap >= PlanLimits.OVERLAP_AHEAD_MIN
          ? AheadUse.AHEAD_USE_LAST
          : AheadUse.AHEAD_USE_NOTHING;
    }
  }

  /** A step of one head to the next residence that is worth its bytes. */
  private record Upgrade(int head, int to, double gain, long bytes) {}

  private Planner() {}

  /**
   * Makes a plan.
   *
   * @throws io.kvtier.KvtierException EXHAUSTED if the budget is below the fixed bytes
   */
  public static Plan plan(PlanInputs inputs) {
    int count = GeometryLimits.heads(inputs.geometry());
    List<Head> heads = new ArrayList<>();
    for (int i = 0; i < count; i++) {
      heads.add(head(inputs, i));
    }
    long spare = inputs.budgetBytes() - inputs.fixedDeviceBytes();
    List<Option> chosen = choose(heads, spare - spare / HOT_SET_SHARE);
    long resident = chosen.stream().mapToLong(Option::deviceBytes).sum();
    long hotSet = Math.min(spare - resident, hotSetMost(inputs, chosen));
    Plan.Builder plan =
        Plan.newBuilder()
            .setMode(PlanMode.PLAN_MODE_KVTIER)
            .setDominantTokensMin(Math.min(DOMINANT_TOKENS_MIN, inputs.tokens()))
            .setHotSetBytes(hotSet)
            .setDeviceBytes(inputs.fixedDeviceBytes() + resident + hotSet)
            .setTokens(inputs.tokens())
            .setProfileSessions(inputs.profileSessions())
            .setFetchRate(inputs.rates().fetch())
            .setAttendRate(inputs.rates().attend());
    for (int i = 0; i < count; i++) {
      plan.addHeads(headPlan(inputs, i, heads.get(i), chosen.get(i)));
    }
    return plan.build();
  }

  /** A hot set of more bytes than all rows there are, with its tables, would stay empty. */
  private static long hotSetMost(PlanInputs inputs, List<Option> chosen) {
    long sketched =
        chosen.stream().filter(option -> Residence.SKETCHED.contains(option.residence())).count();
    int each = RowForm.of(inputs.layout()).bytes() + HOT_ROW_TABLE_BYTES;
    return sketched * inputs.pages() * PageLayout.TOKENS * each;
  }

  private static Head head(PlanInputs inputs, int index) {
    int tokens = inputs.tokens();
    int capMin =
        Math.min(tokens, Math.max(DOMINANT_TOKENS_CAP_MIN, tokens / DOMINANT_TOKENS_CAP_SHARE));
    if (inputs.curves().isEmpty()) {
      int needed = Math.max(DOMINANT_TOKENS_MIN, tokens / NEEDED_SHARE);
      return new Head(
          NO_PROFILE,
          capMin,
          0,
          ResidualCurve.UNMEASURED,
          new HeadCosts(inputs, needed, ResidualCurve.UNMEASURED));
    }
    ResidualCurve curve = inputs.curves().get(index);
    int needed = curve.tokensFor(RESIDUAL_MASS);
    int cap = Math.clamp((long) DOMINANT_TOKENS_MARGIN * needed, capMin, tokens);
    HeadCosts costs =
        new HeadCosts(inputs, Math.max(DOMINANT_TOKENS_MIN, needed), curve.scoreError());
    return new Head(needed, cap, curve.residualAt(cap), curve.overlap(), costs);
  }

  /** Spends bytes on upgrades, best gain a byte first; ties go by place. */
  private static List<Option> choose(List<Head> heads, long bytes) {
    List<List<Option>> ladders = heads.stream().map(head -> head.costs.worthwhile()).toList();
    int[] at = new int[heads.size()];
    PriorityQueue<Upgrade> upgrades =
        new PriorityQueue<>(
            Comparator.comparingDouble((Upgrade upgrade) -> -upgrade.gain)
                .thenComparingInt(Upgrade::head));
    for (int head = 0; head < at.length; head++) {
      offer(upgrades, ladders.get(head), head, 1);
    }
    long left = bytes;
    // The first that does not fit ends it: more bytes then never give any head less.
    while (!upgrades.isEmpty() && upgrades.peek().bytes <= left) {
      Upgrade upgrade = upgrades.remove();
      left -= upgrade.bytes;
      at[upgrade.head] = upgrade.to;
      offer(upgrades, ladders.get(upgrade.head), upgrade.head, upgrade.to + 1);
    }
    List<Option> chosen = new ArrayList<>();
    for (int head = 0; head < at.length; head++) {
      chosen.add(ladders.get(head).get(at[head]));
    }
    return chosen;
  }

  private static void offer(
      PriorityQueue<Upgrade> upgrades, List<Option> ladder, int head, int to) {
    if (to < ladder.size()) {
      Option from = ladder.get(to - 1);
      Option next = ladder.get(to);
      upgrades.add(
          new Upgrade(
              head, to, HeadCosts.gain(from, next), next.deviceBytes() - from.deviceBytes()));
    }
  }

  private static HeadPlan headPlan(PlanInputs inputs, int index, Head head, Option chosen) {
    Geometry geometry = inputs.geometry();
    HeadPlan.Builder plan =
        HeadPlan.newBuilder()
            .setLayer(index / geometry.getKvHeads())
            .setKvHead(index % geometry.getKvHeads())
            .setDeviceBytes(chosen.deviceBytes())
            .setFetchBytes(chosen.fetchBytes())
            .setOnePlaneErrs(head.costs.onePlaneErrs())
            .setReason(reason(inputs, head, chosen));
    return switch (chosen.residence()) {
      case DENSE -> plan.setHeadClass(HeadClass.HEAD_CLASS_DENSE).build();
      case STREAMED -> plan.setHeadClass(HeadClass.HEAD_CLASS_STREAMED).build();
      case TWO_PLANES, ONE_PLANE ->
          plan.setHeadClass(HeadClass.HEAD_CLASS_SPARSE)
              .setSketchPlanes(chosen.residence().planes())
              .setDominantTokensMax(head.cap)
              .setResidualMass(RESIDUAL_MASS)
              .setPredictedResidual((float) head.predicted)
              .setAhead(head.ahead())
              .setOverlap(Math.max(0, head.overlap))
              .build();
    };
  }

  /** Why rows of a head that chooses are fetched ahead of a query, or not. */
  private static String ahead(Head head, Option chosen) {
    if (!Residence.SKETCHED.contains(chosen.residence()) || head.overlap < 0) {
      return "";
    }
    boolean last = head.ahead() == AheadUse.AHEAD_USE_LAST;
    return String.format(
        Locale.ROOT,
        "; %.0f %% were chosen the query before: %s",
        100 * head.overlap,
        last ? "fetched ahead" : "not fetched ahead");
  }

  private static String reason(PlanInputs inputs, Head head, Option chosen) {
    String need =
        head.needed == NO_PROFILE
            ? "no profile"
            : String.format(
                Locale.ROOT,
                "%s%,d of %,d tokens leave 1 %%",
                inputs.source(),
                head.needed,
                inputs.tokens());
    Option streamed = head.costs.of(Residence.STREAMED);
    Option sketched = head.costs.of(Residence.TWO_PLANES);
    String what =
        switch (chosen.residence()) {
          case DENSE ->
              String.format(
                  Locale.ROOT, "dense saves fetching %,d kB a step", sketched.fetchBytes() / 1000);
          case TWO_PLANES, ONE_PLANE ->
              String.format(
                  Locale.ROOT,
                  "a sketch of %d planes fetches %,d kB a step, not %,d",
                  chosen.residence().planes(),
                  chosen.fetchBytes() / 1000,
                  streamed.fetchBytes() / 1000);
          case STREAMED ->
              inputs.pages() == 0
                  ? "nothing outside the window yet"
                  : head.costs.onePlaneErrs()
                      ? "no bytes left for two planes, and by one its scores err too far: all"
                          + " pages fetched every step"
                      : "no bytes left for a sketch: all pages fetched every step";
        };
    return need + ": " + what + ahead(head, chosen);
  }
}
