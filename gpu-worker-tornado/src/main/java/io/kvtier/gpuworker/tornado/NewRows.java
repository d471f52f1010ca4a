package io.kvtier.gpuworker.tornado;

import io.kvtier.attention.GroupQuery;
import io.kvtier.attention.Partial;
import io.kvtier.gpuworker.device.LayerShape;

/** Attention over a step's own tokens, on the host: they have just come from there, and are few. */
final class NewRows {
  private final LayerShape shape;
  private final float[] output;
  private float[] weights = new float[16];

  NewRows(LayerShape shape) {
    this.shape = shape;
    this.output = new float[shape.headDim()];
  }

  /**
   * Merges each q head's attention over {@code count} tokens into its partial.
   *
   * @param keys {@code [count][kvHeads][headDim]}; {@code values} likewise
   */
  void attend(GroupQuery[] queries, float[] keys, float[] values, int count, Partial[] partials) {
    if (count == 0) {
      return;
    }
    weights = weights.length < count ? new float[2 * count] : weights;
    for (int head = 0; head < queries.length; head++) {
      for (int g = 0; g < shape.group(); g++) {
        float lse = weigh(queries[head].plain(), g, head, keys, count);
        addUp(head, values, count);
        partials[head * shape.group() + g].merge(output, 0, 1, lse);
      }
    }
  }

  /** Turns scores into shares; returns their log-sum-exp. */
  private float weigh(float[] query, int g, int head, float[] keys, int count) {
    int headDim = shape.headDim();
    float max = Float.NEGATIVE_INFINITY;
    for (int t = 0; t < count; t++) {
      int key = t * shape.rowLength() + head * headDim;
      float dot = 0;
      for (int i = 0; i < headDim; i++) {
        dot += query[g * headDim + i] * keys[key + i];
      }
      weights[t] = dot;
      max = Math.max(max, dot);
    }
    double total = 0;
    for (int t = 0; t < count; t++) {
      weights[t] = (float) Math.exp(weights[t] - max);
      total += weights[t];
    }
    for (int t = 0; t < count; t++) {
      weights[t] = (float) (weights[t] / total);
    }
    return max + (float) Math.log(total);
  }

  private void addUp(int head, float[] values, int count) {
    java.util.Arrays.fill(output, 0);
    for (int t = 0; t < count; t++) {
      int value = t * shape.rowLength() + head * shape.headDim();
      for (int i = 0; i < output.length; i++) {
        output[i] += weights[t] * values[value + i];
      }
    }
  }
}
