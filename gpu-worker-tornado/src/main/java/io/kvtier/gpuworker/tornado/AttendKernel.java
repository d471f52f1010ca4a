package io.kvtier.gpuworker.tornado;

import static io.kvtier.gpuworker.tornado.StepLayout.GROUP;

import uk.ac.manchester.tornado.api.KernelContext;
import uk.ac.manchester.tornado.api.math.TornadoMath;
import uk.ac.manchester.tornado.api.types.arrays.FloatArray;
import uk.ac.manchester.tornado.api.types.arrays.IntArray;

/**
 * Attention over exact rows and over every token of coded pages, as Flash-Decoding cuts it: a
 * partial for all exact rows, and one a chunk of pages. One kernel for both, since every launch
 * costs a round trip to the device.
 */
final class AttendKernel {
  private AttendKernel() {}

  /** Element index, from the first of its place on, of an exact row: of sinks, then the ring. */
  static int exactRow(IntArray ints, int row, int sinks) {
    int ring = ints.get(StepLayout.WINDOW_FIRST) + row - sinks;
    int ringRows = ints.get(StepLayout.WINDOW_ROWS);
    ring = ring >= ringRows ? ring - ringRows : ring;
    return (row < sinks ? row : ring) * ints.get(StepLayout.ROW_ELEMENTS);
  }

  /**
   * One work-group a KV head, block of queries and part: the exact rows first if there is a part
   * for them, then the chunks of pages.
   *
   * @param pages where rows and codes lie, and the tables that say where
   * @param partials receives {@code [slots][blocks][4][2 + 2 headDim]}, a head's parts one after
   *     the other
   */
  static void attend(
      KernelContext context,
      IntArray pages,
      IntArray ints,
      FloatArray floats,
      FloatArray partials) {
    part(context, context.groupIdx, pages, ints, floats, partials);
  }

  /** What one work-group of {@link #attend} does. */
  static void part(
      KernelContext context,
      int workGroup,
      IntArray pages,
      IntArray ints,
      FloatArray floats,
      FloatArray partials) {
    int lane = context.localIdx;
    int headDim = ints.get(StepLayout.HEAD_DIM);
    int blocks = ints.get(StepLayout.BLOCKS);
    int exactParts = ints.get(StepLayout.EXACT_PARTS);
    int parts = exactParts + ints.get(StepLayout.CODE_CHUNKS);
    int headBlock = workGroup / parts;
    int part = workGroup - headBlock * parts;
    int head = headBlock / blocks;
    int own = StepLayout.HEADS + head * StepLayout.HEAD_INTS;
    int exact = part < exactParts ? 1 : 0;
    int sinks = ints.get(StepLayout.SINKS);
    int rows = sinks + ints.get(StepLayout.WINDOW_COUNT);
    int codePages = ints.get(own + StepLayout.CODE_PAGES);
    int page = (part - exactParts) * ints.get(StepLayout.CHUNK_PAGES);
    int end = page + ints.get(StepLayout.CHUNK_PAGES);
    end = end < codePages ? end : codePages;
    if (exact == 1) {
      page = 0;
      end = (rows + GROUP - 1) / GROUP;
    }
    float[] queries = context.allocateFloatLocalArray(4 * 256);
    float[] sums = context.allocateFloatLocalArray(8 * 256);
    float[] weights = context.allocateFloatLocalArray(4 * GROUP);
    float[] dots = context.allocateFloatLocalArray(GROUP);
    float[] scales = context.allocateFloatLocalArray(GROUP);
    float[] levels = context.allocateFloatLocalArray(16);
    float[] max = context.allocateFloatLocalArray(4);
    float[] total = context.allocateFloatLocalArray(4);
    float[] pageTotal = context.allocateFloatLocalArray(4);
    float[] shrink = context.allocateFloatLocalArray(4);
    int ofQueries = exact == 1 ? StepLayout.PLAIN : StepLayout.ROTATED;
    for (int i = lane; i < 4 * headDim; i += GROUP) {
      queries[i] = floats.get(ofQueries + headBlock * 4 * headDim + i);
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
    context.localBarrier();
    while (page < end) {
      int sketch = 0;
      int codes = 0;
      if (exact == 0) {
        sketch = pages.get(ints.get(own + StepLayout.SKETCH_TABLE) + page);
        codes = pages.get(ints.get(own + StepLayout.CODES_TABLE) + page);
        int mean = sketch + (ints.get(own + StepLayout.KEY_MEAN_AT) >> 2);
        int query = StepLayout.PLAIN + (headBlock * 4 + (lane & 3)) * headDim;
        float sum = 0f;
        for (int i = lane >> 2; i < headDim; i += 16) {
          sum += floats.get(query + i) * Coded.half(pages, mean, i);
        }
        dots[lane] = sum;
        scales[lane] =
            Coded.half(pages, codes + (ints.get(own + StepLayout.VALUE_SCALES_AT) >> 2), lane);
      }
      context.localBarrier();
      float score0 = 0f;
      float score1 = 0f;
      float score2 = 0f;
      float score3 = 0f;
      int left = 0;
      if (exact == 1) {
        int row = page * GROUP + lane;
        left = row < rows ? 0 : 1;
        if (row < rows) {
          int place =
              row < sinks ? ints.get(StepLayout.SINK_PLACE) : ints.get(StepLayout.WINDOW_PLACE);
          int at = exactRow(ints, row, sinks) + (ints.get(StepLayout.FIRST_HEAD) + head) * headDim;
          int bytes = ints.get(StepLayout.ELEMENT_BYTES);
          for (int i = 0; i < headDim; i++) {
            float key = Coded.exact(pages, place, at + i, bytes, floats);
            score0 += queries[i] * key;
            score1 += queries[headDim + i] * key;
            score2 += queries[2 * headDim + i] * key;
            score3 += queries[3 * headDim + i] * key;
          }
        }
      } else {
        int fine = ints.get(own + StepLayout.FINE_AT);
        for (int row = 0; row < headDim / 8; row++) {
          int at = row * GROUP + lane;
          int sign = Coded.u8(pages, sketch, at);
          int coarse = Coded.u8(pages, sketch, 8 * headDim + at);
          int upper = Coded.u8(pages, codes, fine + at);
          int lower = Coded.u8(pages, codes, fine + 8 * headDim + at);
          for (int bit = 0; bit < 8; bit++) {
            int code =
                ((sign >> bit) & 1) * 8
                    + ((coarse >> bit) & 1) * 4
                    + ((upper >> bit) & 1) * 2
                    + ((lower >> bit) & 1);
            float level = levels[code];
            int i = row * 8 + bit;
            score0 += queries[i] * level;
            score1 += queries[headDim + i] * level;
            score2 += queries[2 * headDim + i] * level;
            score3 += queries[3 * headDim + i] * level;
          }
        }
        float scale = Coded.half(pages, sketch + (ints.get(own + StepLayout.SCALES_AT) >> 2), lane);
        float mean0 = 0f;
        float mean1 = 0f;
        float mean2 = 0f;
        float mean3 = 0f;
        for (int t = 0; t < GROUP; t += 4) {
          mean0 += dots[t];
          mean1 += dots[t + 1];
          mean2 += dots[t + 2];
          mean3 += dots[t + 3];
        }
        score0 = score0 * scale + mean0;
        score1 = score1 * scale + mean1;
        score2 = score2 * scale + mean2;
        score3 = score3 * scale + mean3;
        left = page == 0 && lane < ints.get(own + StepLayout.SKIPPED) ? 1 : 0;
      }
      weights[lane] = left == 1 ? StepLayout.NONE : score0;
      weights[GROUP + lane] = left == 1 ? StepLayout.NONE : score1;
      weights[2 * GROUP + lane] = left == 1 ? StepLayout.NONE : score2;
      weights[3 * GROUP + lane] = left == 1 ? StepLayout.NONE : score3;
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
        pageTotal[lane] = sum;
        total[lane] = total[lane] * shrink[lane] + sum;
      }
      context.localBarrier();
      // Exact values are plain sums, decoded ones rotated sums beside their pages' means.
      int valuesAt = ints.get(own + StepLayout.VALUES_AT);
      int valueMean = sketch + (ints.get(own + StepLayout.VALUE_MEAN_AT) >> 2);
      int first = exact == 1 ? 4 * headDim : 0;
      for (int i = lane; i < headDim; i += GROUP) {
        float sum0 = sums[first + i] * shrink[0];
        float sum1 = sums[first + headDim + i] * shrink[1];
        float sum2 = sums[first + 2 * headDim + i] * shrink[2];
        float sum3 = sums[first + 3 * headDim + i] * shrink[3];
        if (exact == 1) {
          int bytes = ints.get(StepLayout.ELEMENT_BYTES);
          int count = rows - page * GROUP < GROUP ? rows - page * GROUP : GROUP;
          for (int t = 0; t < count; t++) {
            int row = page * GROUP + t;
            int place =
                row < sinks ? ints.get(StepLayout.SINK_PLACE) : ints.get(StepLayout.WINDOW_PLACE);
            int rowsBefore =
                row < sinks ? ints.get(StepLayout.SINK_ROWS) : ints.get(StepLayout.WINDOW_ROWS);
            int at =
                rowsBefore * ints.get(StepLayout.ROW_ELEMENTS)
                    + exactRow(ints, row, sinks)
                    + (ints.get(StepLayout.FIRST_HEAD) + head) * headDim;
            float value = Coded.exact(pages, place, at + i, bytes, floats);
            sum0 += weights[t] * value;
            sum1 += weights[GROUP + t] * value;
            sum2 += weights[2 * GROUP + t] * value;
            sum3 += weights[3 * GROUP + t] * value;
          }
        } else {
          for (int t = 0; t < GROUP; t++) {
            int code = Coded.valueCode(pages, codes, valuesAt + t * headDim / 2, i, headDim);
            float value = levels[code] * scales[t];
            sum0 += weights[t] * value;
            sum1 += weights[GROUP + t] * value;
            sum2 += weights[2 * GROUP + t] * value;
            sum3 += weights[3 * GROUP + t] * value;
          }
          float value = Coded.half(pages, valueMean, i);
          for (int g = 0; g < 4; g++) {
            int at = (4 + g) * headDim + i;
            sums[at] = sums[at] * shrink[g] + pageTotal[g] * value;
          }
        }
        sums[first + i] = sum0;
        sums[first + headDim + i] = sum1;
        sums[first + 2 * headDim + i] = sum2;
        sums[first + 3 * headDim + i] = sum3;
      }
      context.localBarrier();
      page++;
    }
    int length = StepLayout.VALUES + 2 * headDim;
    int slot = ints.get(own + StepLayout.FIRST_SLOT) + part;
    int out = (slot * blocks + headBlock - head * blocks) * 4 * length;
    int kept = exact == 1 || codePages > 0 ? 4 : 0;
    for (int g = 0; g < kept; g++) {
      if (lane == 0) {
        partials.set(out + g * length + StepLayout.MAX, max[g]);
        partials.set(out + g * length + StepLayout.SUM, total[g]);
      }
      for (int i = lane; i < headDim; i += GROUP) {
        partials.set(out + g * length + StepLayout.VALUES + i, sums[g * headDim + i]);
        partials.set(
            out + g * length + StepLayout.VALUES + headDim + i, sums[(4 + g) * headDim + i]);
      }
    }
  }
}
