package io.kvtier.attention;

/**
 * Plain attention in double precision: the oracle that every other attention is held to.
 * softmax(q·K / √headDim) V, in two passes, no tricks.
 */
public final class ReferenceAttention {
  private ReferenceAttention() {}

  /**
   * Attends one query to some tokens.
   *
   * @param query {@code [headDim]} from {@code queryAt} on
   * @param keys {@code [tokens][stride]}, of which {@code headDim} elements from {@code at} on are
   *     this head's
   * @param values as {@code keys}
   * @param output receives {@code [headDim]} from {@code outputAt} on; zeros if there are no tokens
   * @return the log-sum-exp of the scores; -∞ if there are no tokens
   */
  public static double attend(
      float[] query,
      int queryAt,
      float[] keys,
      float[] values,
      int at,
      int stride,
      int tokens,
      int headDim,
      float[] output,
      int outputAt) {
    double[] scores = new double[tokens];
    double max = Double.NEGATIVE_INFINITY;
    for (int t = 0; t < tokens; t++) {
      double dot = 0;
      for (int i = 0; i < headDim; i++) {
        dot += (double) query[queryAt + i] * keys[at + t * stride + i];
      }
      scores[t] = dot / Math.sqrt(headDim);
      max = Math.max(max, scores[t]);
    }
    double[] sum = new double[headDim];
    double total = 0;
    for (int t = 0; t < tokens; t++) {
      double weight = Math.exp(scores[t] - max);
      total += weight;
      for (int i = 0; i < headDim; i++) {
        sum[i] += weight * values[at + t * stride + i];
      }
    }
    for (int i = 0; i < headDim; i++) {
      output[outputAt + i] = tokens == 0 ? 0 : (float) (sum[i] / total);
    }
    return tokens == 0 ? Double.NEGATIVE_INFINITY : max + Math.log(total);
  }
}
