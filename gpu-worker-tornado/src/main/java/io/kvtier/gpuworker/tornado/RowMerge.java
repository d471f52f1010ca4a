package io.kvtier.gpuworker.tornado;

import io.kvtier.attention.GroupQuery;
import io.kvtier.attention.Partial;
import io.kvtier.gpuworker.device.LayerShape;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.Arrays;
import uk.ac.manchester.tornado.api.types.arrays.FloatArray;

/** Merges the partials of chosen tokens' rows, in the order of their slots. One pass. */
final class RowMerge {
  private final int group;
  private final int headDim;

  /** What is rotated, then what is plain; as in a partial. */
  private final float[] sums;

  private final float[] partial;

  RowMerge(LayerShape shape) {
    this.group = shape.group();
    this.headDim = shape.headDim();
    this.sums = new float[2 * headDim];
    this.partial = new float[StepLayout.partialLength(headDim)];
  }

  /**
   * Merges one KV head's slots.
   *
   * @param partials {@code [slots][blocks][4][2 + 2 headDim]}
   * @param into receives them, a q head each from {@code firstQuery} on
   */
  void merge(
      FloatArray partials,
      int firstSlot,
      int slots,
      int blocks,
      GroupQuery query,
      Partial[] into,
      int firstQuery) {
    // Once: each call makes a segment.
    MemorySegment all = partials.getSegment();
    for (int g = 0; g < group; g++) {
      int stride = blocks * StepLayout.QUERIES * partial.length;
      int first = firstSlot * stride + g * partial.length;
      float max = StepLayout.NONE;
      for (int slot = 0; slot < slots; slot++) {
        max = Math.max(max, partials.get(first + slot * stride + StepLayout.MAX));
      }
      float total = 0;
      Arrays.fill(sums, 0);
      for (int slot = 0; slot < slots; slot++) {
        long at = (long) (first + slot * stride) * Float.BYTES;
        MemorySegment.copy(all, ValueLayout.JAVA_FLOAT, at, partial, 0, partial.length);
        float share = (float) Math.exp(partial[StepLayout.MAX] - max);
        total += partial[StepLayout.SUM] * share;
        for (int i = 0; i < sums.length; i++) {
          sums[i] += partial[StepLayout.VALUES + i] * share;
        }
      }
      query.rotateBack(sums, 0);
      for (int i = 0; i < headDim; i++) {
        sums[i] = (sums[i] + sums[headDim + i]) / total;
      }
      into[firstQuery + g].merge(sums, 0, 1, max + (float) Math.log(total));
    }
  }
}
