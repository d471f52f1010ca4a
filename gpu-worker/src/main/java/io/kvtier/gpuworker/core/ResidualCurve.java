package io.kvtier.gpuworker.core;

/**
 * E(k) of one KV head, gathered over the queries of a window and the q heads of the group: the mean
 * attention mass beyond the k tokens of most mass (TailorKV, arXiv 2505.19586, section 4.1, where P
 * = E of 5 % of the tokens). One thread.
 */
public final class ResidualCurve {
  private static final int SMALLEST_K = 16;

  /** Nothing has been measured. */
  public static final float UNMEASURED = -1;

  private final int[] ks;
  private final double[] sums;
  private int samples;
  private float overlap = UNMEASURED;
  private float scoreError = UNMEASURED;

  /** A curve over k = 16, 32, 64, ... up to at least {@code tokens}. */
  public ResidualCurve(int tokens) {
    int points = 1;
    for (long k = SMALLEST_K; k < tokens; k <<= 1) {
      points++;
    }
    this.ks = new int[points];
    this.sums = new double[points];
    for (int i = 0; i < points; i++) {
      ks[i] = SMALLEST_K << i;
    }
  }

  /** Adds one query's masses: shares of its whole attention. */
  public void add(MassHistogram masses) {
    for (int i = 0; i < ks.length; i++) {
      sums[i] += masses.massBeyond(ks[i]);
    }
    samples++;
  }

  /** Queries, each of one q head, that were added. */
  public int samples() {
    return samples;
  }

  /** Notes what share of a query's chosen tokens the query before chose too, 0..1. */
  public void overlap(float share) {
    overlap = share;
  }

  /** That share; {@link #UNMEASURED}. */
  public float overlap() {
    return overlap;
  }

  /** Notes the standard deviation of the error of a score by one key plane. */
  public void scoreError(float deviation) {
    scoreError = deviation;
  }

  /** That deviation; {@link #UNMEASURED}. */
  public float scoreError() {
    return scoreError;
  }

  public int points() {
    return ks.length;
  }

  public int k(int point) {
    return ks[point];
  }

  /** E(k) at a point; 0 if nothing was added. */
  public float residual(int point) {
    return samples == 0 ? 0 : (float) Math.clamp(sums[point] / samples, 0.0, 1.0);
  }
}
