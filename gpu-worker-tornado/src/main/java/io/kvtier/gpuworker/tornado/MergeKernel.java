package io.kvtier.gpuworker.tornado;

import static io.kvtier.gpuworker.tornado.StepLayout.GROUP;

import uk.ac.manchester.tornado.api.KernelContext;
import uk.ac.manchester.tornado.api.math.TornadoMath;
import uk.ac.manchester.tornado.api.types.arrays.FloatArray;
import uk.ac.manchester.tornado.api.types.arrays.IntArray;

/** Merges the partials of each q head, in the order of their slots. */
final class MergeKernel {
  /** Most partials of a query: of exact rows, and of each of {@link StepLayout#CHUNKS_MAX}. */
  static final int SLOTS_MAX = 128;

  private MergeKernel() {}

  /**
   * One work-group a padded query.
   *
   * @param result receives from {@link StepLayout#MERGED_AT} on {@code [padded queries][2 + 2
   *     headDim]}: the log-sum-exp ({@link StepLayout#NONE} if there was nothing), nothing, and the
   *     two sums of values over the sum
   */
  static void merge(KernelContext context, IntArray ints, FloatArray partials, FloatArray result) {
    query(context, context.groupIdx, ints, partials, result);
  }

  /** Merges one query's. */
  static void query(
      KernelContext context, int query, IntArray ints, FloatArray partials, FloatArray result) {
    int lane = context.localIdx;
    int headDim = ints.get(StepLayout.HEAD_DIM);
    int blocks = ints.get(StepLayout.BLOCKS);
    int head = query / (blocks * 4);
    int within = query - head * blocks * 4;
    int length = StepLayout.VALUES + 2 * headDim;
    int own = StepLayout.HEADS + head * StepLayout.HEAD_INTS;
    int slots = ints.get(own + StepLayout.SLOTS);
    int stride = blocks * 4 * length;
    int first = ints.get(own + StepLayout.FIRST_SLOT) * stride + within * length;
    int into = StepLayout.MERGED_AT + query * length;
    float[] shares = context.allocateFloatLocalArray(SLOTS_MAX);
    float most = StepLayout.NONE;
    for (int slot = 0; slot < slots; slot++) {
      most = TornadoMath.max(most, partials.get(first + slot * stride + StepLayout.MAX));
    }
    for (int slot = lane; slot < slots; slot += GROUP) {
      shares[slot] = TornadoMath.exp(partials.get(first + slot * stride + StepLayout.MAX) - most);
    }
    context.localBarrier();
    float total = 0f;
    for (int slot = 0; slot < slots; slot++) {
      total += partials.get(first + slot * stride + StepLayout.SUM) * shares[slot];
    }
    for (int i = lane; i < 2 * headDim; i += GROUP) {
      float sum = 0f;
      for (int slot = 0; slot < slots; slot++) {
        sum += partials.get(first + slot * stride + StepLayout.VALUES + i) * shares[slot];
      }
      result.set(into + StepLayout.VALUES + i, total > 0f ? sum / total : 0f);
    }
    if (lane == 0) {
      result.set(
          into + StepLayout.MAX, total > 0f ? most + TornadoMath.log(total) : StepLayout.NONE);
      result.set(into + StepLayout.SUM, 0f);
    }
  }
}
