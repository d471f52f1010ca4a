package io.kvtier.gpuworker.tornado;

import static io.kvtier.gpuworker.tornado.StepLayout.GROUP;

import uk.ac.manchester.tornado.api.KernelContext;
import uk.ac.manchester.tornado.api.math.TornadoMath;
import uk.ac.manchester.tornado.api.types.arrays.FloatArray;
import uk.ac.manchester.tornado.api.types.arrays.IntArray;

/**
 * Attention over the rows of chosen tokens: what the sketch lacks of them lies in places of their
 * own, where those that the lane has not yet are put first.
 */
final class RowsKernel {
  // The stage begins with the step's ints; then come four ints a slot of rows of one head, two a
  // row, and the rows that are sent, each after the first int of its place in the arena.

  static final int SLOT_INTS = 4;
  static final int SLOT_HEAD = 0;
  static final int SLOT_FIRST_ROW = 1;
  static final int SLOT_ROWS = 2;

  static final int ROW_INTS = 2;

  /** Its position, and {@link #SENT} or nothing. */
  static final int ROW_POSITION = 0;

  /** The first int of its place in the arena; of a row that is sent, where the stage has it. */
  static final int ROW_PLACE = 1;

  /** Above all positions. */
  static final int SENT = 1 << 24;

  private RowsKernel() {}

  /**
   * One work-group a slot and block of queries. The host merges the partials, so few that a kernel
   * for it would take longer.
   *
   * @param arena the rows' places are written to
   * @param stage the step's ints, {@code [slots][4]}, {@code [rows][2]}, then rows
   * @param ints the same array
   * @param partials receives {@code [slots][blocks][4][2 + 2 headDim]}
   */
  static void attend(
      KernelContext context,
      IntArray arena,
      IntArray stage,
      IntArray ints,
      FloatArray floats,
      FloatArray partials) {
    int lane = context.localIdx;
    int headDim = ints.get(StepLayout.HEAD_DIM);
    int blocks = ints.get(StepLayout.BLOCKS);
    int slot = context.groupIdx / blocks;
    int block = context.groupIdx - slot * blocks;
    int slotAt = ints.get(StepLayout.SLOT_TABLE) + slot * SLOT_INTS;
    int head = stage.get(slotAt + SLOT_HEAD);
    int firstRow = stage.get(slotAt + SLOT_FIRST_ROW);
    int own = StepLayout.HEADS + head * StepLayout.HEAD_INTS;
    int rowTable = ints.get(StepLayout.ROW_TABLE);
    int rowInts = ints.get(StepLayout.ROW_INTS);
    int sketches = ints.get(own + StepLayout.SKETCH_TABLE);
    float[] queries = context.allocateFloatLocalArray(4 * 256);
    float[] weights = context.allocateFloatLocalArray(4 * GROUP);
    float[] scales = context.allocateFloatLocalArray(GROUP);
    int[] places = context.allocateIntLocalArray(GROUP);
    int[] pages = context.allocateIntLocalArray(GROUP);
    float[] levels = context.allocateFloatLocalArray(16);
    float[] sums = context.allocateFloatLocalArray(8 * 256);
    float[] max = context.allocateFloatLocalArray(4);
    float[] total = context.allocateFloatLocalArray(4);
    float[] shrink = context.allocateFloatLocalArray(4);
    for (int i = lane; i < 4 * headDim; i += GROUP) {
      queries[i] = floats.get(StepLayout.ROTATED + (head * blocks + block) * 4 * headDim + i);
      sums[i] = 0f;
      sums[4 * headDim + i] = 0f;
    }
    if (lane < 16) {
      levels[lane] = floats.get(Coded.LEVELS + lane);
    }
    if (lane < 4) {
      max[lane] = StepLayout.NONE;
      total[lane] = 0f;
    }
    int end = firstRow + ints.get(slotAt + SLOT_ROWS);
    while (firstRow < end) {
      int rows = end - firstRow < GROUP ? end - firstRow : GROUP;
      scales[lane] = 0f;
      if (lane < rows) {
        int entry = rowTable + (firstRow + lane) * ROW_INTS;
        int place = stage.get(entry + ROW_PLACE);
        int source = place;
        int count = 0;
        if (stage.get(entry + ROW_POSITION) >= SENT) {
          place = stage.get(source);
          count = rowInts;
        }
        for (int i = 0; i < count; i++) {
          arena.set(place + i, stage.get(source + 1 + i));
        }
        places[lane] = place;
      }
      context.localBarrier();
      context.globalBarrier();
      float score0 = StepLayout.NONE;
      float score1 = StepLayout.NONE;
      float score2 = StepLayout.NONE;
      float score3 = StepLayout.NONE;
      if (lane < rows) {
        int entry = rowTable + (firstRow + lane) * ROW_INTS;
        int position = stage.get(entry + ROW_POSITION) & (SENT - 1);
        int token = position & (GROUP - 1);
        int sketch = arena.get(sketches + (position >> 6));
        int data = places[lane];
        pages[lane] = sketch;
        int planes = ints.get(own + StepLayout.ROW_PLANES);
        int fine = ints.get(own + StepLayout.FINE_AT);
        int coarseAt = ints.get(own + StepLayout.COARSE_AT);
        score0 = 0f;
        score1 = 0f;
        score2 = 0f;
        score3 = 0f;
        for (int r = 0; r < headDim / 8; r++) {
          int sign = Coded.u8(arena, sketch, r * GROUP + token);
          int coarse =
              planes == 2
                  ? Coded.u8(arena, sketch, 8 * headDim + r * GROUP + token)
                  : Coded.u8(arena, data, coarseAt + r);
          int upper = Coded.u8(arena, data, fine + r);
          int lower = Coded.u8(arena, data, fine + headDim / 8 + r);
          for (int bit = 0; bit < 8; bit++) {
            int code =
                ((sign >> bit) & 1) * 8
                    + ((coarse >> bit) & 1) * 4
                    + ((upper >> bit) & 1) * 2
                    + ((lower >> bit) & 1);
            float level = levels[code];
            int i = r * 8 + bit;
            score0 += queries[i] * level;
            score1 += queries[headDim + i] * level;
            score2 += queries[2 * headDim + i] * level;
            score3 += queries[3 * headDim + i] * level;
          }
        }
        float scale =
            Coded.half(arena, sketch + (ints.get(own + StepLayout.SCALES_AT) >> 2), token);
        int mean = sketch + (ints.get(own + StepLayout.KEY_MEAN_AT) >> 2);
        int query = StepLayout.PLAIN + (head * blocks + block) * 4 * headDim;
        float mean0 = 0f;
        float mean1 = 0f;
        float mean2 = 0f;
        float mean3 = 0f;
        for (int i = 0; i < headDim; i++) {
          float key = Coded.half(arena, mean, i);
          mean0 += floats.get(query + i) * key;
          mean1 += floats.get(query + headDim + i) * key;
          mean2 += floats.get(query + 2 * headDim + i) * key;
          mean3 += floats.get(query + 3 * headDim + i) * key;
        }
        score0 = score0 * scale + mean0;
        score1 = score1 * scale + mean1;
        score2 = score2 * scale + mean2;
        score3 = score3 * scale + mean3;
        int low = Coded.u8(arena, data, ints.get(own + StepLayout.VALUE_SCALES_AT));
        int high = Coded.u8(arena, data, ints.get(own + StepLayout.VALUE_SCALES_AT) + 1);
        scales[lane] = Coded.halfOf(low + high * 256);
      }
      weights[lane] = score0;
      weights[GROUP + lane] = score1;
      weights[2 * GROUP + lane] = score2;
      weights[3 * GROUP + lane] = score3;
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
        float sum = 0f;
        for (int t = 0; t < GROUP; t++) {
          sum += weights[lane * GROUP + t];
        }
        total[lane] = total[lane] * shrink[lane] + sum;
      }
      context.localBarrier();
      int valuesAt = ints.get(own + StepLayout.VALUES_AT);
      int valueMean = ints.get(own + StepLayout.VALUE_MEAN_AT) >> 2;
      for (int i = lane; i < headDim; i += GROUP) {
        int nibble = Coded.valueNibble(valuesAt, i, headDim);
        int word = nibble >> 3;
        int shift = (nibble & 7) << 2;
        float sum0 = sums[i] * shrink[0];
        float sum1 = sums[headDim + i] * shrink[1];
        float sum2 = sums[2 * headDim + i] * shrink[2];
        float sum3 = sums[3 * headDim + i] * shrink[3];
        float mean0 = sums[4 * headDim + i] * shrink[0];
        float mean1 = sums[5 * headDim + i] * shrink[1];
        float mean2 = sums[6 * headDim + i] * shrink[2];
        float mean3 = sums[7 * headDim + i] * shrink[3];
        int t = 0;
        while (t < rows) {
          // Rows of one page lie side by side, and share its mean.
          int page = pages[t];
          float weight0 = 0f;
          float weight1 = 0f;
          float weight2 = 0f;
          float weight3 = 0f;
          int same = 1;
          while (same == 1) {
            float value = levels[(arena.get(places[t] + word) >> shift) & 15] * scales[t];
            sum0 += weights[t] * value;
            sum1 += weights[GROUP + t] * value;
            sum2 += weights[2 * GROUP + t] * value;
            sum3 += weights[3 * GROUP + t] * value;
            weight0 += weights[t];
            weight1 += weights[GROUP + t];
            weight2 += weights[2 * GROUP + t];
            weight3 += weights[3 * GROUP + t];
            t++;
            same = t < rows && pages[t] == page ? 1 : 0;
          }
          float mean = Coded.half(arena, page + valueMean, i);
          mean0 += weight0 * mean;
          mean1 += weight1 * mean;
          mean2 += weight2 * mean;
          mean3 += weight3 * mean;
        }
        sums[i] = sum0;
        sums[headDim + i] = sum1;
        sums[2 * headDim + i] = sum2;
        sums[3 * headDim + i] = sum3;
        sums[4 * headDim + i] = mean0;
        sums[5 * headDim + i] = mean1;
        sums[6 * headDim + i] = mean2;
        sums[7 * headDim + i] = mean3;
      }
      context.localBarrier();
      firstRow += GROUP;
    }
    int length = StepLayout.VALUES + 2 * headDim;
    int out = (slot * blocks + block) * 4 * length;
    for (int g = 0; g < 4; g++) {
      if (lane == 0) {
        partials.set(out + g * length + StepLayout.MAX, max[g]);
        partials.set(out + g * length + StepLayout.SUM, total[g]);
      }
      for (int i = lane; i < headDim; i += GROUP) {
        int to = out + g * length + StepLayout.VALUES + i;
        partials.set(to, sums[g * headDim + i]);
        partials.set(to + headDim, sums[(4 + g) * headDim + i]);
      }
    }
  }
}
