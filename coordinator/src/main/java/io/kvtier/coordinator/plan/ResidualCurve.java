package io.kvtier.coordinator.plan;

import static io.kvtier.KvtierException.requireInRange;

import io.kvtier.KvtierException;
import io.kvtier.rpc.GeometryLimits;
import io.kvtier.rpc.PlanLimits;
import java.util.Arrays;

/**
 * The cost curve E(k) of one KV head: the attention mass beyond the k tokens of most mass, measured
 * at some k and linear between them. It starts at (0, 1) and ends at (tokens, 0). A true curve is
 * convex, so the line lies above it: residuals and needed tokens are predicted too high rather than
 * too low. Where measured points rise, the least value so far holds, as E(k) cannot rise.
 */
public final class ResidualCurve {
  /** Most measured points a curve has. */
  public static final int POINTS_MAX = 32;

  /** Nothing has been measured. */
  public static final float UNMEASURED = -1;

  private final int[] k;
  private final double[] residual;
  private final float overlap;
  private final float scoreError;

  private ResidualCurve(int[] k, double[] residual, float overlap, float scoreError) {
    this.k = k;
    this.residual = residual;
    this.overlap = overlap;
    this.scoreError = scoreError;
  }

  /**
   * The curve of a head of which more is known.
   *
   * @param share of a query's chosen tokens that the query before chose too, 0..1
   * @throws KvtierException INVALID with name, value and bound
   */
  public ResidualCurve withOverlap(String name, float share) {
    // Written so that NaN is refused too.
    if (!(share >= 0 && share <= 1)) {
      throw KvtierException.invalid("overlap of %s is %s; it must be 0..1", name, share);
    }
    return new ResidualCurve(k, residual, share, scoreError);
  }

  /**
   * The curve of a head of which more is known.
   *
   * @param deviation of the error of a score by one key plane, 0..1000
   * @throws KvtierException INVALID with name, value and bound
   */
  public ResidualCurve withScoreError(String name, float deviation) {
    if (!(deviation >= 0 && deviation <= PlanLimits.SCORE_ERROR_MAX)) {
      throw KvtierException.invalid(
          "score_error of %s is %s; it must be 0..%d", name, deviation, PlanLimits.SCORE_ERROR_MAX);
    }
    return new ResidualCurve(k, residual, overlap, deviation);
  }

  /** The standard deviation of the error of a score by one key plane; {@link #UNMEASURED}. */
  public float scoreError() {
    return scoreError;
  }

  /**
   * The share of a query's chosen tokens that the query before chose too, 0..1; {@link
   * #UNMEASURED}.
   */
  public float overlap() {
    return overlap;
  }

  /**
   * Makes a curve from measured points; points at or beyond {@code tokens} are left out.
   *
   * @param name names the curve in a refusal
   * @param measuredK tokens, rising, 1..1048576; copied
   * @param measuredResidual E(k) for each, 0..1; copied
   * @param tokens tokens of the context, at least 1
   * @throws KvtierException INVALID with name, value and bound
   */
  public static ResidualCurve of(
      String name, int[] measuredK, float[] measuredResidual, int tokens) {
    requireInRange("points of " + name, measuredK.length, 1, POINTS_MAX);
    int[] k = new int[measuredK.length + 2];
    double[] residual = new double[measuredK.length + 2];
    residual[0] = 1;
    int points = 1;
    int kMin = 1;
    for (int i = 0; i < measuredK.length; i++) {
      String point = name + "[" + i + "]";
      requireInRange(
          "k of " + point, Integer.toUnsignedLong(measuredK[i]), kMin, GeometryLimits.TOKENS_MAX);
      if (!(measuredResidual[i] >= 0 && measuredResidual[i] <= 1)) {
        throw KvtierException.invalid(
            "residual of %s is %s; it must be 0..1", point, measuredResidual[i]);
      }
      kMin = measuredK[i] + 1;
      if (measuredK[i] < tokens) {
        k[points] = measuredK[i];
        residual[points] = Math.min(residual[points - 1], measuredResidual[i]);
        points++;
      }
    }
    k[points] = tokens;
    residual[points] = 0;
    return new ResidualCurve(
        Arrays.copyOf(k, points + 1), Arrays.copyOf(residual, points + 1), UNMEASURED, UNMEASURED);
  }

  /** The least measured k; the context's tokens where all points lie beyond them. */
  public int firstMeasured() {
    return k[1];
  }

  /** Measured points within the context. */
  public int points() {
    return k.length - 2;
  }

  /** The k of a measured point. */
  public int k(int point) {
    return k[point + 1];
  }

  /** E(k) of a measured point. */
  public float residual(int point) {
    return (float) residual[point + 1];
  }

  /** The mass beyond the {@code tokens} tokens of most mass, 0..1. */
  public double residualAt(int tokens) {
    for (int i = 1; i < k.length; i++) {
      if (tokens <= k[i]) {
        double share = (double) (tokens - k[i - 1]) / (k[i] - k[i - 1]);
        return residual[i - 1] + share * (residual[i] - residual[i - 1]);
      }
    }
    return 0;
  }

  /** The fewest tokens beyond which at most {@code target} of the mass lies; target is below 1. */
  public int tokensFor(double target) {
    for (int i = 1; i < k.length; i++) {
      if (residual[i] <= target) {
        double share = (residual[i - 1] - target) / (residual[i - 1] - residual[i]);
        return k[i - 1] + (int) Math.ceil(share * (k[i] - k[i - 1]));
      }
    }
    throw new IllegalStateException("a curve ends at residual 0, not above " + target);
  }
}
