package io.kvtier.attention;

import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.VectorSpecies;

/** Exact rows, lane = dimension. The window is small and stays in the cache between q heads. */
final class RowKernels {
  private static final VectorSpecies<Float> F = KernelLanes.F;
  private static final int LANES = KernelLanes.LANES;

  private RowKernels() {}

  static void scoreBf16(
      GroupQuery query, int g, long rows, int stride, int count, float[] scores, int at) {
    int headDim = query.headDim();
    for (int r = 0; r < count; r++) {
      long row = rows + (long) r * stride;
      FloatVector sum = FloatVector.zero(F);
      for (int i = 0; i < headDim; i += LANES) {
        FloatVector q = FloatVector.fromArray(F, query.plain, g * headDim + i);
        sum = KernelLanes.bf16(row + 2L * i).fma(q, sum);
      }
      scores[at + r] = KernelLanes.sum(sum);
    }
  }

  static void scoreFp32(
      GroupQuery query, int g, long rows, int stride, int count, float[] scores, int at) {
    int headDim = query.headDim();
    for (int r = 0; r < count; r++) {
      long row = rows + (long) r * stride;
      FloatVector sum = FloatVector.zero(F);
      for (int i = 0; i < headDim; i += LANES) {
        FloatVector q = FloatVector.fromArray(F, query.plain, g * headDim + i);
        sum = KernelLanes.fp32(row + 4L * i).fma(q, sum);
      }
      scores[at + r] = KernelLanes.sum(sum);
    }
  }

  static void addBf16(
      long rows,
      int stride,
      int count,
      int headDim,
      float[] weights,
      int weightsAt,
      float[] sums,
      int sumsAt) {
    for (int i = 0; i < headDim; i += LANES) {
      FloatVector sum = FloatVector.fromArray(F, sums, sumsAt + i);
      long row = rows + 2L * i;
      for (int r = 0; r < count; r++) {
        sum = KernelLanes.bf16(row).fma(FloatVector.broadcast(F, weights[weightsAt + r]), sum);
        row += stride;
      }
      sum.intoArray(sums, sumsAt + i);
    }
  }

  static void addFp32(
      long rows,
      int stride,
      int count,
      int headDim,
      float[] weights,
      int weightsAt,
      float[] sums,
      int sumsAt) {
    for (int i = 0; i < headDim; i += LANES) {
      FloatVector sum = FloatVector.fromArray(F, sums, sumsAt + i);
      long row = rows + 4L * i;
      for (int r = 0; r < count; r++) {
        sum = KernelLanes.fp32(row).fma(FloatVector.broadcast(F, weights[weightsAt + r]), sum);
        row += stride;
      }
      sum.intoArray(sums, sumsAt + i);
    }
  }
}
