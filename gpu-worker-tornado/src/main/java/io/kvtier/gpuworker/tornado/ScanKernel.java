package io.kvtier.gpuworker.tornado;

import static io.kvtier.gpuworker.tornado.StepLayout.GROUP;

import io.kvtier.gpuworker.core.MassHistogram;
import io.kvtier.gpuworker.cpu.SketchError;
import uk.ac.manchester.tornado.api.KernelContext;
import uk.ac.manchester.tornado.api.math.TornadoMath;
import uk.ac.manchester.tornado.api.types.arrays.FloatArray;
import uk.ac.manchester.tornado.api.types.arrays.IntArray;

/**
 * Weighs every paged token of the heads that choose by their sketch. A score is table sums times
 * step, plus bias, times the token's scale, plus the mean key's score, raised by half the variance
 * of the sketch's error; a weight is e^(score - reference), where the reference is a multiple of ln
 * 2 near the chunk's largest score. Weights are rounded, and multiples of ln 2 only move their
 * exponents; so whatever reference another chunk or device takes, they are rounded alike, and no
 * chunk need wait for what the exact rows come to.
 */
final class ScanKernel {
  /** An estimate is raised by at most this. */
  private static final float RAISE_MAX = SketchError.RAISE_MAX;

  private static final float LOG2_E = 1.442695f;
  private static final float LN_2 = .6931472f;

  /** Beyond this a score has no fraction that a multiple could leave. */
  private static final float MULTIPLES_MAX = 1 << 22;

  private ScanKernel() {}

  /**
   * Attends and scans: what the one gives, the other does not need. One work-group a KV head, block
   * of queries and part, as {@link AttendKernel} says; then one a KV head, block of queries and
   * chunk of pages.
   *
   * @param ints then tables, {@code [padded queries][2 headDim]} from {@link StepLayout#TABLES_AT}
   *     on
   * @param scratch receives {@code [qHeads][tokens]} weights, numbers that are bf16, 0 for sinks;
   *     and {@code [qHeads][chunks][2]} stats, the chunk's reference and sum of weights
   * @param partials receives what {@link AttendKernel} says
   * @param histograms receives 0 for all {@code [kvHeads][chunks][buckets]}
   */
  static void attendAndScan(
      KernelContext context,
      IntArray arena,
      IntArray ints,
      FloatArray floats,
      FloatArray scratch,
      FloatArray partials,
      IntArray histograms) {
    int attending = ints.get(StepLayout.ATTEND_GROUPS);
    if (context.groupIdx < attending) {
      AttendKernel.part(context, context.groupIdx, arena, ints, floats, partials);
    } else {
      scan(context, context.groupIdx - attending, arena, ints, floats, scratch, histograms);
    }
  }

  /** A multiple of ln 2 next to a score. */
  static float reference(float score) {
    int multiple = (int) (score * LOG2_E);
    return TornadoMath.abs(score) < MULTIPLES_MAX ? multiple * LN_2 : score;
  }

  private static void scan(
      KernelContext context,
      int workGroup,
      IntArray arena,
      IntArray ints,
      FloatArray floats,
      FloatArray scratch,
      IntArray histograms) {
    int lane = context.localIdx;
    int headDim = ints.get(StepLayout.HEAD_DIM);
    int blocks = ints.get(StepLayout.BLOCKS);
    int chunks = ints.get(StepLayout.CHUNKS);
    int chunk = workGroup % chunks;
    int headBlock = workGroup / chunks;
    int head = headBlock / blocks;
    int group = ints.get(StepLayout.Q_GROUP);
    int firstQuery = (headBlock - head * blocks) * 4;
    int own = StepLayout.HEADS + head * StepLayout.HEAD_INTS;
    int planes = ints.get(own + StepLayout.PLANES);
    int pages = ints.get(StepLayout.PAGES);
    int tokens = pages * GROUP;
    int weights = ints.get(StepLayout.WEIGHTS_AT);
    int[] table = context.allocateIntLocalArray(8 * 256);
    float[] squares = context.allocateFloatLocalArray(GROUP);
    float[] dots = context.allocateFloatLocalArray(GROUP);
    float[] references = context.allocateFloatLocalArray(4);
    for (int i = lane; i < 8 * headDim; i += GROUP) {
      table[i] = ints.get(ints.get(StepLayout.TABLES_AT) + headBlock * 8 * headDim + i);
    }
    int buckets = firstQuery == 0 ? MassHistogram.BUCKETS : 0;
    for (int i = lane; i < buckets; i += GROUP) {
      histograms.set((head * chunks + chunk) * MassHistogram.BUCKETS + i, 0);
    }
    context.localBarrier();
    int firstPage = chunk * ints.get(StepLayout.CHUNK_PAGES);
    int endPage = firstPage + ints.get(StepLayout.CHUNK_PAGES);
    endPage = endPage < pages ? endPage : pages;
    endPage = planes == 0 ? firstPage : endPage;
    float max0 = StepLayout.NONE;
    float max1 = StepLayout.NONE;
    float max2 = StepLayout.NONE;
    float max3 = StepLayout.NONE;
    for (int page = firstPage; page < endPage; page++) {
      int sketch = arena.get(ints.get(own + StepLayout.SKETCH_TABLE) + page);
      float scale = Coded.half(arena, sketch + (ints.get(own + StepLayout.SCALES_AT) >> 2), lane);
      squares[lane] = scale * scale;
      // Lane 4k + g adds up the k-th sixteenth of query g's score of the mean key.
      int mean = sketch + (ints.get(own + StepLayout.KEY_MEAN_AT) >> 2);
      int query = StepLayout.PLAIN + (headBlock * 4 + (lane & 3)) * headDim;
      float part = 0f;
      for (int i = lane >> 2; i < headDim; i += 16) {
        part += floats.get(query + i) * Coded.half(arena, mean, i);
      }
      dots[lane] = part;
      context.localBarrier();
      int sum0 = 0;
      int sum1 = 0;
      int sum2 = 0;
      int sum3 = 0;
      int rows = planes * headDim / 8;
      for (int row = 0; row < rows; row++) {
        int bits = Coded.u8(arena, sketch, row * GROUP + lane);
        int low = bits & 15;
        int high = (bits >> 4) & 15;
        // Written out four times: a local array must not be handed to a method.
        int at = row * 8 + (low >> 2);
        int and = row * 8 + 4 + (high >> 2);
        int lowShift = (low & 3) << 3;
        int highShift = (high & 3) << 3;
        sum0 += ((table[at] >> lowShift) & 255) + ((table[and] >> highShift) & 255);
        at += 2 * headDim;
        and += 2 * headDim;
        sum1 += ((table[at] >> lowShift) & 255) + ((table[and] >> highShift) & 255);
        at += 2 * headDim;
        and += 2 * headDim;
        sum2 += ((table[at] >> lowShift) & 255) + ((table[and] >> highShift) & 255);
        at += 2 * headDim;
        and += 2 * headDim;
        sum3 += ((table[at] >> lowShift) & 255) + ((table[and] >> highShift) & 255);
      }
      float square = 0f;
      for (int t = 0; t < GROUP; t++) {
        square += squares[t];
      }
      square = square / 128f;
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
      int q = headBlock * 4;
      float score0 =
          (sum0 * floats.get(StepLayout.STEPS + q) + floats.get(StepLayout.BIASES + q)) * scale
              + mean0
              + TornadoMath.min(RAISE_MAX, floats.get(StepLayout.ERROR_VARIANCES + q) * square);
      q++;
      float score1 =
          (sum1 * floats.get(StepLayout.STEPS + q) + floats.get(StepLayout.BIASES + q)) * scale
              + mean1
              + TornadoMath.min(RAISE_MAX, floats.get(StepLayout.ERROR_VARIANCES + q) * square);
      q++;
      float score2 =
          (sum2 * floats.get(StepLayout.STEPS + q) + floats.get(StepLayout.BIASES + q)) * scale
              + mean2
              + TornadoMath.min(RAISE_MAX, floats.get(StepLayout.ERROR_VARIANCES + q) * square);
      q++;
      float score3 =
          (sum3 * floats.get(StepLayout.STEPS + q) + floats.get(StepLayout.BIASES + q)) * scale
              + mean3
              + TornadoMath.min(RAISE_MAX, floats.get(StepLayout.ERROR_VARIANCES + q) * square);
      int token = page * GROUP + lane;
      if (token < ints.get(StepLayout.SINKS)) {
        score0 = StepLayout.NONE;
        score1 = StepLayout.NONE;
        score2 = StepLayout.NONE;
        score3 = StepLayout.NONE;
      }
      max0 = TornadoMath.max(max0, score0);
      max1 = TornadoMath.max(max1, score1);
      max2 = TornadoMath.max(max2, score2);
      max3 = TornadoMath.max(max3, score3);
      int out = weights + (head * group + firstQuery) * tokens + token;
      scratch.set(out, score0);
      if (firstQuery + 1 < group) {
        scratch.set(out + tokens, score1);
      }
      if (firstQuery + 2 < group) {
        scratch.set(out + 2 * tokens, score2);
      }
      if (firstQuery + 3 < group) {
        scratch.set(out + 3 * tokens, score3);
      }
      context.localBarrier();
    }
    for (int g = 0; g < 4; g++) {
      float max = g == 0 ? max0 : (g == 1 ? max1 : (g == 2 ? max2 : max3));
      dots[lane] = max;
      context.localBarrier();
      if (lane == 0) {
        for (int t = 0; t < GROUP; t++) {
          max = TornadoMath.max(max, dots[t]);
        }
        references[g] = reference(max);
      }
      context.localBarrier();
      float sum = 0f;
      if (firstQuery + g < group) {
        int from = weights + (head * group + firstQuery + g) * tokens + lane;
        for (int page = firstPage; page < endPage; page++) {
          float score = scratch.get(from + page * GROUP);
          float weight =
              score < StepLayout.NONE_AT_MOST ? 0f : Coded.weight(score - references[g], floats);
          scratch.set(from + page * GROUP, weight);
          sum += weight;
        }
      }
      squares[lane] = sum;
      context.localBarrier();
      if (lane == 0 && firstQuery + g < group) {
        float total = 0f;
        for (int t = 0; t < GROUP; t++) {
          total += squares[t];
        }
        int out = StepLayout.STATS_AT + ((head * group + firstQuery + g) * chunks + chunk) * 2;
        scratch.set(out, references[g]);
        scratch.set(out + 1, total);
      }
      context.localBarrier();
    }
  }
}
