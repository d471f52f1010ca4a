package io.kvtier.gpuworker.tornado;

import static io.kvtier.gpuworker.tornado.StepLayout.GROUP;

import uk.ac.manchester.tornado.api.KernelContext;
import uk.ac.manchester.tornado.api.math.TornadoMath;
import uk.ac.manchester.tornado.api.types.arrays.FloatArray;
import uk.ac.manchester.tornado.api.types.arrays.IntArray;

/** Attention over the exact rows: sinks, then the window, which is a ring. */
final class WindowKernel {
  private WindowKernel() {}

  /** Score of an exact row for one query. */
  static float score(
      IntArray arena,
      int place,
      int at,
      int bytes,
      FloatArray constants,
      FloatArray floats,
      int query,
      int headDim) {
    float dot = 0f;
    for (int i = 0; i < headDim; i++) {
      dot += floats.get(query + i) * Coded.exact(arena, place, at + i, bytes, constants);
    }
    return dot;
  }

  /**
   * One work-group a KV head and block of queries; a partial each into the head's first slot.
   *
   * @param partials receives {@code [slots][blocks][4][2 + 2 headDim]}
   */
  static void attend(
      KernelContext context,
      IntArray arena,
      IntArray ints,
      FloatArray floats,
      FloatArray constants,
      FloatArray partials) {
    int lane = context.localIdx;
    int group = context.groupIdx;
    int headDim = ints.get(StepLayout.HEAD_DIM);
    int blocks = ints.get(StepLayout.BLOCKS);
    int bytes = ints.get(StepLayout.ELEMENT_BYTES);
    int sinks = ints.get(StepLayout.SINKS);
    int rows = sinks + ints.get(StepLayout.WINDOW_COUNT);
    int head = group / blocks;
    int rowLength = ints.get(StepLayout.ROW_ELEMENTS);
    int query = StepLayout.PLAIN + group * StepLayout.QUERIES * headDim;
    float[] weights = context.allocateFloatLocalArray(4 * GROUP);
    float[] sums = context.allocateFloatLocalArray(4 * 256);
    float[] max = context.allocateFloatLocalArray(4);
    float[] total = context.allocateFloatLocalArray(4);
    float[] shrink = context.allocateFloatLocalArray(4);
    for (int i = lane; i < 4 * headDim; i += GROUP) {
      sums[i] = 0f;
    }
    if (lane < 4) {
      max[lane] = StepLayout.NONE;
      total[lane] = 0f;
    }
    context.localBarrier();
    for (int first = 0; first < rows; first += GROUP) {
      int row = first + lane;
      for (int g = 0; g < 4; g++) {
        float score = StepLayout.NONE;
        if (row < rows) {
          int place = ints.get(StepLayout.SINK_PLACE);
          int at = row * rowLength + head * headDim;
          if (row >= sinks) {
            int ring = ints.get(StepLayout.WINDOW_FIRST) + row - sinks;
            int ringRows = ints.get(StepLayout.WINDOW_ROWS);
            ring = ring >= ringRows ? ring - ringRows : ring;
            place = ints.get(StepLayout.WINDOW_PLACE);
            at = ring * rowLength + head * headDim;
          }
          score = score(arena, place, at, bytes, constants, floats, query + g * headDim, headDim);
        }
        weights[g * GROUP + lane] = score;
      }
      context.localBarrier();
      if (lane < 4) {
        float most = max[lane];
        for (int t = 0; t < GROUP; t++) {
          most = TornadoMath.max(most, weights[lane * GROUP + t]);
        }
        shrink[lane] = TornadoMath.exp(max[lane] - most);
        max[lane] = most;
      }
      context.localBarrier();
      for (int g = 0; g < 4; g++) {
        float score = weights[g * GROUP + lane];
        weights[g * GROUP + lane] =
            score < StepLayout.NONE_AT_MOST ? 0f : TornadoMath.exp(score - max[g]);
      }
      context.localBarrier();
      if (lane < 4) {
        float sum = total[lane] * shrink[lane];
        for (int t = 0; t < GROUP; t++) {
          sum += weights[lane * GROUP + t];
        }
        total[lane] = sum;
      }
      int count = rows - first < GROUP ? rows - first : GROUP;
      for (int i = lane; i < headDim; i += GROUP) {
        float sum0 = sums[i] * shrink[0];
        float sum1 = sums[headDim + i] * shrink[1];
        float sum2 = sums[2 * headDim + i] * shrink[2];
        float sum3 = sums[3 * headDim + i] * shrink[3];
        for (int t = 0; t < count; t++) {
          int place = ints.get(StepLayout.SINK_PLACE);
          int at = (ints.get(StepLayout.SINK_ROWS) + first + t) * rowLength + head * headDim;
          if (first + t >= sinks) {
            int ring = ints.get(StepLayout.WINDOW_FIRST) + first + t - sinks;
            int ringRows = ints.get(StepLayout.WINDOW_ROWS);
            ring = ring >= ringRows ? ring - ringRows : ring;
            place = ints.get(StepLayout.WINDOW_PLACE);
            at = (ringRows + ring) * rowLength + head * headDim;
          }
          float value = Coded.exact(arena, place, at + i, bytes, constants);
          sum0 += weights[t] * value;
          sum1 += weights[GROUP + t] * value;
          sum2 += weights[2 * GROUP + t] * value;
          sum3 += weights[3 * GROUP + t] * value;
        }
        sums[i] = sum0;
        sums[headDim + i] = sum1;
        sums[2 * headDim + i] = sum2;
        sums[3 * headDim + i] = sum3;
      }
      context.localBarrier();
    }
    int length = StepLayout.VALUES + 2 * headDim;
    int slot = ints.get(StepLayout.HEADS + head * StepLayout.HEAD_INTS + StepLayout.FIRST_SLOT);
    int out = (slot * blocks + group - head * blocks) * 4 * length;
    for (int g = 0; g < 4; g++) {
      if (lane == 0) {
        partials.set(out + g * length + StepLayout.MAX, max[g]);
        partials.set(out + g * length + StepLayout.SUM, total[g]);
      }
      for (int i = lane; i < headDim; i += GROUP) {
        partials.set(out + g * length + StepLayout.VALUES + i, 0f);
        partials.set(out + g * length + StepLayout.VALUES + headDim + i, sums[g * headDim + i]);
      }
    }
  }
}
