package io.kvtier.attention;

import static io.kvtier.page.PageLayout.TOKENS;
import static jdk.incubator.vector.VectorOperators.GE;
import static jdk.incubator.vector.VectorOperators.GT;
import static jdk.incubator.vector.VectorOperators.MAX;

import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.IntVector;
import jdk.incubator.vector.VectorMask;
import jdk.incubator.vector.VectorSpecies;

/**
 * Vector loops over scores, weights and fp16 numbers. Loops are small and keep their vectors in
 * locals: larger ones, or methods that hand vectors around, make the compiler box them.
 */
final class ScoreKernels {
  private static final VectorSpecies<Float> F = KernelLanes.F;
  private static final VectorSpecies<Integer> I = KernelLanes.I;
  private static final int LANES = KernelLanes.LANES;

  private static final ValueLayout.OfShort SHORT =
      ValueLayout.JAVA_SHORT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

  private static final ValueLayout.OfLong LONG = ValueLayout.JAVA_LONG_UNALIGNED;

  private ScoreKernels() {}

  static float half(long address) {
    return Float.float16ToFloat(OffHeap.ALL.get(SHORT, address));
  }

  /** Reads {@code count} fp16 numbers, a multiple of 16. */
  static void halves(long address, int count, float[] out) {
    for (int i = 0; i < count; i += LANES) {
      KernelLanes.halves(address + 2L * i).intoArray(out, i);
    }
  }

  /** A sum over one word of each cache line; eight lines at a time, for all to be under way. */
  static long touch(long address, int length) {
    long sum = 0;
    long end = address + length - 512;
    long line = address;
    for (; line <= end; line += 512) {
      sum +=
          OffHeap.ALL.get(LONG, line)
              + OffHeap.ALL.get(LONG, line + 64)
              + OffHeap.ALL.get(LONG, line + 128)
              + OffHeap.ALL.get(LONG, line + 192)
              + OffHeap.ALL.get(LONG, line + 256)
              + OffHeap.ALL.get(LONG, line + 320)
              + OffHeap.ALL.get(LONG, line + 384)
              + OffHeap.ALL.get(LONG, line + 448);
    }
    for (; line <= address + length - Long.BYTES; line += 64) {
      sum += OffHeap.ALL.get(LONG, line);
    }
    return sum;
  }

  /** As {@link #touch}, a piece of each page. */
  static long touchPages(long[] pages, int from, int to, int at, int length) {
    long sum = 0;
    for (int line = at; line < at + length; line += 64) {
      for (int page = from; page < to; page++) {
        sum += OffHeap.ALL.get(LONG, pages[page] + line);
      }
    }
    return sum;
  }

  /**
   * The score of a page's mean key with each query of a group.
   *
   * @param mean address of {@code [headDim]} fp16
   */
  static void meanScores(GroupQuery query, long mean, float[] lanes, float[] scores) {
    int headDim = query.headDim();
    for (int g = 0; g < query.group(); g += query.blockAt(g)) {
      if (query.blockAt(g) == 4) {
        meanScoresFour(query.plain, g * headDim, headDim, mean, lanes);
        sums(lanes, 4, scores, g, 1);
      } else {
        scores[g] = meanScore(query.plain, g * headDim, headDim, mean);
      }
    }
  }

  /**
   * Adds up lanes, several sums at once.
   *
   * @param lanes {@code [count][lanes]}
   * @param sums receives them from {@code at} on, {@code stride} apart
   */
  static void sums(float[] lanes, int count, float[] sums, int at, int stride) {
    for (int i = 0; i < count; i++) {
      sums[at + i * stride] = KernelLanes.sum(FloatVector.fromArray(F, lanes, i * LANES));
    }
  }

  private static float meanScore(float[] q, int at, int headDim, long mean) {
    FloatVector sum = FloatVector.zero(F);
    for (int i = 0; i < headDim; i += LANES) {
      sum = FloatVector.fromArray(F, q, at + i).fma(KernelLanes.halves(mean + 2L * i), sum);
    }
    return KernelLanes.sum(sum);
  }

  private static void meanScoresFour(float[] q, int at, int headDim, long mean, float[] lanes) {
    FloatVector sum0 = FloatVector.zero(F);
    FloatVector sum1 = sum0;
    FloatVector sum2 = sum0;
    FloatVector sum3 = sum0;
    for (int i = 0; i < headDim; i += LANES) {
      FloatVector half = KernelLanes.halves(mean + 2L * i);
      int qAt = at + i;
      sum0 = FloatVector.fromArray(F, q, qAt).fma(half, sum0);
      sum1 = FloatVector.fromArray(F, q, qAt + headDim).fma(half, sum1);
      sum2 = FloatVector.fromArray(F, q, qAt + 2 * headDim).fma(half, sum2);
      sum3 = FloatVector.fromArray(F, q, qAt + 3 * headDim).fma(half, sum3);
    }
    sum0.intoArray(lanes, 0);
    sum1.intoArray(lanes, LANES);
    sum2.intoArray(lanes, 2 * LANES);
    sum3.intoArray(lanes, 3 * LANES);
  }

  /**
   * {@code scores = scores x scales + mean} of a page's wanted tokens, -∞ of the others.
   *
   * @param scores {@code [group][64]}
   * @param scales address of {@code [64]} fp16
   * @param means {@code [group]}
   */
  static void scale(float[] scores, int group, long wanted, long scales, float[] means) {
    FloatVector none = FloatVector.broadcast(F, Float.NEGATIVE_INFINITY);
    for (int t = 0; t < TOKENS; t += LANES) {
      FloatVector scale = KernelLanes.halves(scales + 2L * t);
      VectorMask<Float> those = VectorMask.fromLong(F, wanted >>> t);
      for (int g = 0; g < group; g++) {
        FloatVector score =
            FloatVector.fromArray(F, scores, g * TOKENS + t)
                .fma(scale, FloatVector.broadcast(F, means[g]));
        none.blend(score, those).intoArray(scores, g * TOKENS + t);
      }
    }
  }

  static float max(float[] scores, int at, int count) {
    FloatVector max = FloatVector.broadcast(F, Float.NEGATIVE_INFINITY);
    int i = 0;
    for (; i <= count - LANES; i += LANES) {
      FloatVector score = FloatVector.fromArray(F, scores, at + i);
      max = max.blend(score, score.compare(GT, max));
    }
    float most = max.reduceLanes(MAX);
    for (; i < count; i++) {
      most = Math.max(most, scores[at + i]);
    }
    return most;
  }

  /** {@link KernelLanes#weights} of a run of scores; returns their sum. */
  static float weigh(
      float[] scores, int at, float reference, float[] weights, int weightsAt, int count) {
    FloatVector total = FloatVector.zero(F);
    for (int i = 0; i < count; i += LANES) {
      FloatVector x = FloatVector.fromArray(F, scores, at + i).sub(reference);
      FloatVector weight = KernelLanes.weights(x);
      weight.intoArray(weights, weightsAt + i);
      total = total.add(weight);
    }
    return KernelLanes.sum(total);
  }

  /** As {@link #weigh}, a page with each query of a group. */
  static void weighPage(
      float[] scores, int group, float[] references, float[] weights, float[] totals) {
    for (int g = 0; g < group; g++) {
      FloatVector total = FloatVector.zero(F);
      for (int t = 0; t < TOKENS; t += LANES) {
        FloatVector x = FloatVector.fromArray(F, scores, g * TOKENS + t).sub(references[g]);
        FloatVector weight = KernelLanes.weights(x);
        weight.intoArray(weights, g * TOKENS + t);
        total = total.add(weight);
      }
      totals[g] = KernelLanes.sum(total);
    }
  }

  /** As {@link #max}, a page with each query of a group. */
  static void maxima(float[] scores, int group, float[] maxima) {
    for (int g = 0; g < group; g++) {
      FloatVector max = FloatVector.fromArray(F, scores, g * TOKENS);
      for (int t = LANES; t < TOKENS; t += LANES) {
        FloatVector score = FloatVector.fromArray(F, scores, g * TOKENS + t);
        max = max.blend(score, score.compare(GT, max));
      }
      maxima[g] = KernelLanes.max(max);
    }
  }

  static void addScaled(float[] x, float factor, int count, float[] sums, int sumsAt) {
    FloatVector by = FloatVector.broadcast(F, factor);
    for (int i = 0; i < count; i += LANES) {
      FloatVector.fromArray(F, x, i)
          .fma(by, FloatVector.fromArray(F, sums, sumsAt + i))
          .intoArray(sums, sumsAt + i);
    }
  }

  static int candidates(
      short[] weights,
      int at,
      int stride,
      int group,
      float[] shares,
      int sharesAt,
      float floor,
      int position,
      int[] positions,
      float[] masses,
      int count) {
    int n = count;
    IntVector lane = IntVector.zero(I).addIndex(1);
    for (int t = 0; t < 64; t += LANES) {
      FloatVector mass = FloatVector.zero(F);
      for (int g = 0; g < group; g++) {
        mass =
            KernelLanes.bf16(weights, g * stride + at + t)
                .fma(FloatVector.broadcast(F, shares[sharesAt + g]), mass);
      }
      VectorMask<Float> taken = mass.compare(GE, floor);
      if (taken.anyTrue()) {
        mass.compress(taken).intoArray(masses, n);
        lane.add(position + t).compress(taken.cast(I)).intoArray(positions, n);
        n += taken.trueCount();
      }
    }
    return n;
  }
}
