package io.kvtier.attention;

import java.util.Arrays;

/**
 * A running softmax-weighted sum over tokens that come one by one or page by page (Milakov and
 * Gimelshein, Online normalizer calculation for softmax, 2018). Whoever adds a token asks for its
 * weight first, then adds weight times value to {@link #sum()}; when the largest score rises,
 * everything added so far is scaled down. One thread.
 */
public final class OnlineSoftmax {
  private final float[] sum;
  private float max = Float.NEGATIVE_INFINITY;
  private float total;

  /**
   * An empty sum.
   *
   * @param width elements of the accumulator
   */
  public OnlineSoftmax(int width) {
    this.sum = new float[width];
  }

  /** Back to the empty set. */
  public void clear() {
    Arrays.fill(sum, 0);
    max = Float.NEGATIVE_INFINITY;
    total = 0;
  }

  /** The accumulator, {@code [width]}: Σ weight x value; callers add to it. */
  public float[] sum() {
    return sum;
  }

  /**
   * Makes room for scores up to {@code score}; call it before {@link #weight} for a batch of
   * tokens.
   */
  public void raise(float score) {
    if (score > max) {
      if (total > 0) {
        float shrink = (float) Math.exp(max - score);
        total *= shrink;
        for (int i = 0; i < sum.length; i++) {
          sum[i] *= shrink;
        }
      }
      max = score;
    }
  }

  /** Counts a token of a score not above what was raised to, and returns its weight. */
  public float weight(float score) {
    float weight = (float) Math.exp(score - max);
    total += weight;
    return weight;
  }

  /** Σ weights; 0 for the empty set. */
  public float total() {
    return total;
  }

  /** Log-sum-exp of all scores; -∞ for the empty set. */
  public float lse() {
    return total == 0 ? Float.NEGATIVE_INFINITY : max + (float) Math.log(total);
  }

  /** Merges what has been added, divided by its total, into a partial. */
  public void mergeInto(Partial partial) {
    if (total > 0) {
      partial.merge(sum, 0, 1 / total, lse());
    }
  }
}
