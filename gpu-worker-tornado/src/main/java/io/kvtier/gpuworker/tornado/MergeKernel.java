package io.kvtier.gpuworker.tornado;

import static io.kvtier.gpuworker.tornado.StepLayout.GROUP;

import uk.ac.manchester.tornado.api.KernelContext;
import uk.ac.manchester.tornado.api.math.TornadoMath;
import uk.ac.manchester.tornado.api.types.arrays.FloatArray;
import uk.ac.manchester.tornado.api.types.arrays.IntArray;

/** Merges the partials of each q head, in the order of their slots. */
final class MergeKernel {
  private MergeKernel() {}

  /**
   * One work-group a padded query.
   *
   * @param result receives from {@link StepLayout#MERGED_AT} on {@code [padded queries][2 + 2
   *     headDim]}: the log-sum-exp ({@link StepLayout#NONE} if there was nothing), nothing, and the
   *     two sums of values over the sum
   */
  static void merge(KernelContext context, IntArray ints, FloatArray partials, FloatArray result) {
    int lane = context.localIdx;
    int query = context.groupIdx;
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
    float most = StepLayout.NONE;
    for (int slot = 0; slot < slots; slot++) {
      most = TornadoMath.max(most, partials.get(first + slot * stride + StepLayout.MAX));
    }
    float total = 0f;
    for (int slot = 0; slot < slots; slot++) {
      int at = first + slot * stride;
      total +=
          partials.get(at + StepLayout.SUM)
              * TornadoMath.exp(partials.get(at + StepLayout.MAX) - most);
    }
    for (int i = lane; i < 2 * headDim; i += GROUP) {
      float sum = 0f;
      for (int slot = 0; slot < slots; slot++) {
        int at = first + slot * stride;
        sum +=
            partials.get(at + StepLayout.VALUES + i)
                * TornadoMath.exp(partials.get(at + StepLayout.MAX) - most);
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
