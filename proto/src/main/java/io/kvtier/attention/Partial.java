package io.kvtier.attention;

/**
 * The attention of one query over a set of tokens: the softmax-weighted mean of their values and
 * the log-sum-exp of their scores. Partials over disjoint sets merge exactly (FlashAttention, arXiv
 * 2205.14135, section 3.1; Flash-Decoding): M = max L_i, w_i = e^(L_i - M), o = Σ w_i o_i / Σ w_i,
 * L = M + log Σ w_i. The empty set has L = -∞ and an output of zeros, and merges as nothing.
 */
public final class Partial {
  private final float[] output;
  private float lse = Float.NEGATIVE_INFINITY;

  /** The partial of the empty set. */
  public Partial(int headDim) {
    this.output = new float[headDim];
  }

  /** Makes this the partial of the empty set again. */
  public void clear() {
    java.util.Arrays.fill(output, 0);
    lse = Float.NEGATIVE_INFINITY;
  }

  /** The output, {@code [headDim]}; the array is this partial's own. */
  public float[] output() {
    return output;
  }

  /** Natural logarithm of the sum of e^score; -∞ for the empty set. */
  public float lse() {
    return lse;
  }

  public boolean isEmpty() {
    return lse == Float.NEGATIVE_INFINITY;
  }

  /**
   * Merges a partial over other tokens into this one.
   *
   * @param other {@code [headDim]} from {@code at} on, times {@code factor}; read only
   * @param otherLse its log-sum-exp; -∞: nothing is merged
   */
  public void merge(float[] other, int at, float factor, float otherLse) {
    if (otherLse == Float.NEGATIVE_INFINITY) {
      return;
    }
    float max = Math.max(lse, otherLse);
    float mine = (float) Math.exp(lse - max);
    float theirs = (float) Math.exp(otherLse - max);
    float sum = mine + theirs;
    float keep = mine / sum;
    float add = theirs / sum * factor;
    for (int i = 0; i < output.length; i++) {
      output[i] = keep * output[i] + add * other[at + i];
    }
    lse = max + (float) Math.log(sum);
  }

  /** Merges a partial over other tokens into this one. */
  public void merge(Partial other) {
    merge(other.output, 0, 1f, other.lse);
  }
}
