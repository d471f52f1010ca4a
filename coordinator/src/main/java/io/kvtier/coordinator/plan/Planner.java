package io.kvtier.coordinator.plan;

import io.kvtier.rpc.GeometryLimits;
import io.kvtier.v1.Geometry;
import io.kvtier.v1.HeadClass;
import io.kvtier.v1.HeadPlan;
import io.kvtier.v1.Plan;
import java.util.BitSet;
import java.util.Comparator;
import java.util.List;
import java.util.Locale;
import java.util.stream.IntStream;

/**
 * Makes plans; a pure function of its inputs.
 *
 * <p>Every head starts sparse, with as many dominant tokens as its cost curve asks for. What the
 * budget leaves after the fixed bytes goes first to the hot set and then to dense heads, among
 * those that need a large share of the tokens, from the highest predicted residual down. The order
 * does not depend on the budget and the hot set never takes more than half of any further byte, so
 * more budget never makes fewer heads dense.
 */
public final class Planner {
  /** Attention mass that a sparse head may leave to the estimate. */
  static final float RESIDUAL_MASS = 0.01f;

  static final int DOMINANT_TOKENS_MIN = 64;

  /** A cap on dominant tokens is never below this, nor above it unless a share of the tokens is. */
  static final int DOMINANT_TOKENS_CAP_MIN = 256;

  private static final int DOMINANT_TOKENS_CAP_SHARE = 8;

  /** The curve is a mean over a window of queries; single queries need more. */
  private static final int DOMINANT_TOKENS_MARGIN = 2;

  /** A head may be dense if it needs more than this share of the tokens. */
  private static final int DENSE_SHARE = 10;

  /** The hot set holds this share of the sparse heads' sections: 5 %. */
  private static final int HOT_SET_SHARE = 20;

  private static final int NO_PROFILE = -1;

  /**
   * One head before its class is known.
   *
   * @param needed tokens for the residual target, or {@link #NO_PROFILE}
   * @param cap dominant tokens at most
   * @param predicted residual at {@code cap}; 0 without a profile
   */
  private record Head(int needed, int cap, double predicted) {}

  private Planner() {}

  /**
   * Makes a plan.
   *
   * @throws io.kvtier.KvtierException EXHAUSTED if the budget is below the fixed bytes
   */
  public static Plan plan(PlanInputs inputs) {
    long spareBytes = inputs.budgetBytes() - inputs.fixedDeviceBytes();
    int count = GeometryLimits.heads(inputs.geometry());
    List<Head> heads = IntStream.range(0, count).mapToObj(i -> head(inputs, i)).toList();

    long hotIfAllSparse = hotSetBytes(inputs.denseHeadBytes(), count, spareBytes);
    BitSet dense = denseHeads(inputs, heads, spareBytes - hotIfAllSparse);
    int denseCount = dense.cardinality();
    long hotSetBytes = hotSetBytes(inputs.denseHeadBytes(), count - denseCount, spareBytes);

    Plan.Builder plan =
        Plan.newBuilder()
            .setDominantTokensMin(Math.min(DOMINANT_TOKENS_MIN, inputs.tokens()))
            .setHotSetBytes(hotSetBytes)
            .setDeviceBytes(
                inputs.fixedDeviceBytes() + hotSetBytes + denseCount * inputs.denseHeadBytes())
            .setTokens(inputs.tokens());
    for (int i = 0; i < count; i++) {
      plan.addHeads(headPlan(inputs, i, heads.get(i), dense.get(i)));
    }
    return plan.build();
  }

  private static Head head(PlanInputs inputs, int index) {
    int tokens = inputs.tokens();
    int capMax = Math.max(DOMINANT_TOKENS_CAP_MIN, tokens / DOMINANT_TOKENS_CAP_SHARE);
    if (inputs.curves().isEmpty()) {
      return new Head(NO_PROFILE, capMax, 0);
    }
    ResidualCurve curve = inputs.curves().get(index);
    int needed = curve.tokensFor(RESIDUAL_MASS);
    int capMin = Math.min(DOMINANT_TOKENS_CAP_MIN, tokens);
    int cap = Math.clamp((long) DOMINANT_TOKENS_MARGIN * needed, capMin, capMax);
    return new Head(needed, cap, curve.residualAt(cap));
  }

  private static long hotSetBytes(long denseHeadBytes, int sparseHeads, long spareBytes) {
    return Math.min(denseHeadBytes * sparseHeads / HOT_SET_SHARE, spareBytes / 2);
  }

  /**
   * Spends {@code spareBytes} on the heads for which dense pays most; ties go by need, then place.
   */
  private static BitSet denseHeads(PlanInputs inputs, List<Head> heads, long spareBytes) {
    List<Integer> candidates =
        IntStream.range(0, heads.size())
            .filter(i -> needsMany(heads.get(i), inputs.tokens()))
            .boxed()
            .sorted(
                Comparator.<Integer>comparingDouble(i -> -heads.get(i).predicted)
                    .thenComparingInt(i -> -heads.get(i).needed)
                    .thenComparingInt(i -> i))
            .toList();
    BitSet dense = new BitSet(heads.size());
    long left = spareBytes;
    for (int i : candidates) {
      if (left < inputs.denseHeadBytes()) {
        break;
      }
      left -= inputs.denseHeadBytes();
      dense.set(i);
    }
    return dense;
  }

  private static boolean needsMany(Head head, int tokens) {
    return head.needed != NO_PROFILE && (long) head.needed * DENSE_SHARE > tokens;
  }

  private static HeadPlan headPlan(PlanInputs inputs, int index, Head head, boolean dense) {
    Geometry geometry = inputs.geometry();
    HeadPlan.Builder plan =
        HeadPlan.newBuilder()
            .setLayer(index / geometry.getKvHeads())
            .setKvHead(index % geometry.getKvHeads())
            .setReason(reason(head, inputs.tokens(), dense));
    if (dense) {
      return plan.setHeadClass(HeadClass.HEAD_CLASS_DENSE).build();
    }
    return plan.setHeadClass(HeadClass.HEAD_CLASS_SPARSE)
        .setDominantTokensMax(head.cap)
        .setResidualMass(RESIDUAL_MASS)
        .setPredictedResidual((float) head.predicted)
        .build();
  }

  private static String reason(Head head, int tokens, boolean dense) {
    if (head.needed == NO_PROFILE) {
      return String.format(Locale.ROOT, "no profile: sparse, up to %,d", head.cap);
    }
    if (!needsMany(head, tokens)) {
      return String.format(
          Locale.ROOT, "%,d tokens leave 1 %%: sparse, up to %,d", head.needed, head.cap);
    }
    String need =
        String.format(
            Locale.ROOT, "needs %,d of %,d tokens for 1 %% residual", head.needed, tokens);
    return dense
        ? need + ": dense"
        : String.format(Locale.ROOT, "%s, no room for it dense: sparse, up to %,d", need, head.cap);
  }
}
