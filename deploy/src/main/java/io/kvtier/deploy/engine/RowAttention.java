package io.kvtier.deploy.engine;

import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.VectorOperators;
import jdk.incubator.vector.VectorSpecies;

/**
 * Exact attention of one query over a head's cached rows, lane = dimension. For a handful of
 * queries it beats {@link BlockAttention}, which always computes 64 columns.
 */
final class RowAttention {
  private static final VectorSpecies<Float> SPECIES = PanelKernel.SPECIES;
  private static final int LANES = SPECIES.length();

  private RowAttention() {}

  /**
   * Writes softmax(q k^T / sqrt(headDim)) v.
   *
   * @param queries the query is at {@code query} to {@code query + headDim - 1}
   * @param keys {@code [capacity][headDim]}
   * @param values {@code [capacity][headDim]}
   * @param visible keys attended to, at least 1
   * @param weights working array, at least {@code visible} rounded up to 16
   * @param output written at {@code out} to {@code out + headDim - 1}
   */
  static void attend(
      float[] queries,
      int query,
      int headDim,
      float[] keys,
      float[] values,
      int visible,
      float[] weights,
      float[] output,
      int out) {
    float scale = (float) (1 / Math.sqrt(headDim)) * TileSoftmax.LOG2_E;
    float maximum = Float.NEGATIVE_INFINITY;
    for (int token = 0; token < visible; token++) {
      float score = dot(queries, query, keys, token * headDim, headDim) * scale;
      weights[token] = score;
      maximum = Math.max(maximum, score);
    }
    int padded = (visible + LANES - 1) / LANES * LANES;
    for (int token = visible; token < padded; token++) {
      weights[token] = Float.NEGATIVE_INFINITY;
    }
    for (int token = 0; token < padded; token += LANES) {
      FloatVector.fromArray(SPECIES, weights, token).sub(maximum).intoArray(weights, token);
      TileSoftmax.exp2(weights, token);
    }
    double sum = 0;
    for (int token = 0; token < visible; token++) {
      sum += weights[token];
    }
    weighted(weights, values, visible, headDim, (float) (1 / sum), output, out);
  }

  private static float dot(float[] a, int a0, float[] b, int b0, int length) {
    int whole = SPECIES.loopBound(length);
    FloatVector sums = FloatVector.zero(SPECIES);
    for (int i = 0; i < whole; i += LANES) {
      FloatVector left = FloatVector.fromArray(SPECIES, a, a0 + i);
      sums = left.fma(FloatVector.fromArray(SPECIES, b, b0 + i), sums);
    }
    float sum = sums.reduceLanes(VectorOperators.ADD);
    for (int i = whole; i < length; i++) {
      sum += a[a0 + i] * b[b0 + i];
    }
    return sum;
  }

  private static void weighted(
      float[] weights,
      float[] values,
      int visible,
      int headDim,
      float inverse,
      float[] output,
      int out) {
    int whole = SPECIES.loopBound(headDim);
    for (int d = 0; d < whole; d += LANES) {
      FloatVector s0 = FloatVector.zero(SPECIES);
      FloatVector s1 = s0;
      int token = 0;
      // Two sums: one would wait for itself at every token.
      for (; token + 2 <= visible; token += 2) {
        int at = token * headDim + d;
        s0 =
            FloatVector.fromArray(SPECIES, values, at)
                .fma(FloatVector.broadcast(SPECIES, weights[token]), s0);
        s1 =
            FloatVector.fromArray(SPECIES, values, at + headDim)
                .fma(FloatVector.broadcast(SPECIES, weights[token + 1]), s1);
      }
      if (token < visible) {
        int at = token * headDim + d;
        s0 =
            FloatVector.fromArray(SPECIES, values, at)
                .fma(FloatVector.broadcast(SPECIES, weights[token]), s0);
      }
      s0.add(s1).mul(inverse).intoArray(output, out + d);
    }
    for (int d = whole; d < headDim; d++) {
      float sum = 0;
      for (int token = 0; token < visible; token++) {
        sum += weights[token] * values[token * headDim + d];
      }
      output[out + d] = sum * inverse;
    }
  }
}
