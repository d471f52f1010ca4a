package io.kvtier.gpuworker.core;

import java.util.Arrays;
import java.util.Comparator;

/**
 * The second look at a head's candidates: their attention masses among themselves and the exact
 * tokens, by scores from full codes instead of the sketch, pooled over the group as a mean of
 * softmaxes. A sketch ranks by fewer bits, so the tokens of most mass are sought among a few times
 * as many candidates as are wanted.
 */
public final class Rescore {
  private Rescore() {}

  /** Candidates to look at for each token wanted, by planes of the sketch that chose them. */
  public static int factor(int planes) {
    return planes == 1 ? 4 : 2;
  }

  /**
   * Masses of rows.
   *
   * @param scores {@code [group][rows]}: natural scores; changed
   * @return {@code [rows]}, together 1
   */
  public static float[] masses(float[][] scores, int rows) {
    float[] masses = new float[rows];
    for (float[] ofQuery : scores) {
      float max = Float.NEGATIVE_INFINITY;
      for (int i = 0; i < rows; i++) {
        max = Math.max(max, ofQuery[i]);
      }
      double total = 0;
      for (int i = 0; i < rows; i++) {
        ofQuery[i] = (float) Math.exp(ofQuery[i] - max);
        total += ofQuery[i];
      }
      float share = (float) (1 / (total * scores.length));
      for (int i = 0; i < rows; i++) {
        masses[i] += ofQuery[i] * share;
      }
    }
    return masses;
  }

  /** The {@code k} of {@code [from, to)} with most mass, by falling mass, earlier ones first. */
  public static int[] largest(float[] masses, int from, int to, int k) {
    Integer[] order = new Integer[to - from];
    Arrays.setAll(order, i -> from + i);
    Arrays.sort(order, Comparator.comparingDouble(i -> -masses[i]));
    return Arrays.stream(order).limit(k).mapToInt(i -> i).toArray();
  }
}
