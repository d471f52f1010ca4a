package io.kvtier.attention;

import static io.kvtier.page.PageLayout.TOKENS;
import static java.nio.ByteOrder.LITTLE_ENDIAN;
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

  /** Bytes of a vector. */
  private static final long VECTOR = (long) Float.BYTES * LANES;

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

  /**
   * The same, as many sums at once as there are lanes: halves of two vectors are added and make
   * one, until one vector is left that holds all sums. The same additions as {@link
   * KernelLanes#sum}'s.
   *
   * @param lanes address of {@code [count][lanes]}; overwritten
   */
  static void sums(long lanes, int count, float[] sums, int at) {
    int done = 0;
    for (; done <= count - LANES; done += LANES) {
      sumsOfLanes(lanes + done * VECTOR, sums, at + done);
    }
    for (; done < count; done++) {
      sums[at + done] = KernelLanes.sum(KernelLanes.fp32(lanes + done * VECTOR));
    }
  }

  private static void sumsOfLanes(long lanes, float[] sums, int at) {
    for (int bit = LANES == 16 ? 3 : 2; bit >= 0; bit--) {
      IntVector upper = KernelLanes.lanesWith(bit);
      long half = VECTOR << bit;
      for (int i = 0; i < 1 << bit; i++) {
        long from = OffHeap.address(lanes + i * VECTOR);
        FloatVector a = KernelLanes.fp32(from);
        FloatVector b = KernelLanes.fp32(OffHeap.address(from + half));
        KernelLanes.blend(a, b, upper)
            .add(KernelLanes.exchange(KernelLanes.blend(b, a, upper), bit))
            .intoMemorySegment(OffHeap.ALL, from, LITTLE_ENDIAN);
      }
    }
    KernelLanes.fp32(OffHeap.address(lanes)).intoArray(sums, at);
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
   * As {@link #meanScores} of four pages and queries {@code at} begins with: each query is read
   * once for all pages.
   *
   * @param lanes address of what receives {@code [4 pages][4][lanes]}, still to be added up; {@code
   *     stride} bytes from page to page
   */
  static void meanScoresOfFour(
      float[] q,
      int at,
      int headDim,
      long mean0,
      long mean1,
      long mean2,
      long mean3,
      long lanes,
      int stride) {
    FloatVector zero = FloatVector.zero(F);
    FloatVector s00 = zero;
    FloatVector s01 = zero;
    FloatVector s02 = zero;
    FloatVector s03 = zero;
    FloatVector s10 = zero;
    FloatVector s11 = zero;
    FloatVector s12 = zero;
    FloatVector s13 = zero;
    FloatVector s20 = zero;
    FloatVector s21 = zero;
    FloatVector s22 = zero;
    FloatVector s23 = zero;
    FloatVector s30 = zero;
    FloatVector s31 = zero;
    FloatVector s32 = zero;
    FloatVector s33 = zero;
    for (int i = 0; i < headDim; i += LANES) {
      FloatVector m0 = KernelLanes.halves(OffHeap.address(mean0 + 2L * i));
      FloatVector m1 = KernelLanes.halves(OffHeap.address(mean1 + 2L * i));
      FloatVector m2 = KernelLanes.halves(OffHeap.address(mean2 + 2L * i));
      FloatVector m3 = KernelLanes.halves(OffHeap.address(mean3 + 2L * i));
      int qAt = at + i;
      FloatVector q0 = FloatVector.fromArray(F, q, qAt);
      s00 = q0.fma(m0, s00);
      s10 = q0.fma(m1, s10);
      s20 = q0.fma(m2, s20);
      s30 = q0.fma(m3, s30);
      FloatVector q1 = FloatVector.fromArray(F, q, qAt + headDim);
      s01 = q1.fma(m0, s01);
      s11 = q1.fma(m1, s11);
      s21 = q1.fma(m2, s21);
      s31 = q1.fma(m3, s31);
      FloatVector q2 = FloatVector.fromArray(F, q, qAt + 2 * headDim);
      s02 = q2.fma(m0, s02);
      s12 = q2.fma(m1, s12);
      s22 = q2.fma(m2, s22);
      s32 = q2.fma(m3, s32);
      FloatVector q3 = FloatVector.fromArray(F, q, qAt + 3 * headDim);
      s03 = q3.fma(m0, s03);
      s13 = q3.fma(m1, s13);
      s23 = q3.fma(m2, s23);
      s33 = q3.fma(m3, s33);
    }
    long to = OffHeap.address(lanes);
    s00.intoMemorySegment(OffHeap.ALL, to, LITTLE_ENDIAN);
    s01.intoMemorySegment(OffHeap.ALL, to + VECTOR, LITTLE_ENDIAN);
    s02.intoMemorySegment(OffHeap.ALL, to + 2 * VECTOR, LITTLE_ENDIAN);
    s03.intoMemorySegment(OffHeap.ALL, to + 3 * VECTOR, LITTLE_ENDIAN);
    to = OffHeap.address(to + stride);
    s10.intoMemorySegment(OffHeap.ALL, to, LITTLE_ENDIAN);
    s11.intoMemorySegment(OffHeap.ALL, to + VECTOR, LITTLE_ENDIAN);
    s12.intoMemorySegment(OffHeap.ALL, to + 2 * VECTOR, LITTLE_ENDIAN);
    s13.intoMemorySegment(OffHeap.ALL, to + 3 * VECTOR, LITTLE_ENDIAN);
    to = OffHeap.address(to + stride);
    s20.intoMemorySegment(OffHeap.ALL, to, LITTLE_ENDIAN);
    s21.intoMemorySegment(OffHeap.ALL, to + VECTOR, LITTLE_ENDIAN);
    s22.intoMemorySegment(OffHeap.ALL, to + 2 * VECTOR, LITTLE_ENDIAN);
    s23.intoMemorySegment(OffHeap.ALL, to + 3 * VECTOR, LITTLE_ENDIAN);
    to = OffHeap.address(to + stride);
    s30.intoMemorySegment(OffHeap.ALL, to, LITTLE_ENDIAN);
    s31.intoMemorySegment(OffHeap.ALL, to + VECTOR, LITTLE_ENDIAN);
    s32.intoMemorySegment(OffHeap.ALL, to + 2 * VECTOR, LITTLE_ENDIAN);
    s33.intoMemorySegment(OffHeap.ALL, to + 3 * VECTOR, LITTLE_ENDIAN);
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

  /** As {@link #candidates}, of four queries: their shares stay in registers. */
  static int candidatesOfFour(
      long weights,
      int stride,
      float[] shares,
      int sharesAt,
      float floor,
      int position,
      int[] positions,
      float[] masses,
      int count) {
    int n = count;
    FloatVector share0 = FloatVector.broadcast(F, shares[sharesAt]);
    FloatVector share1 = FloatVector.broadcast(F, shares[sharesAt + 1]);
    FloatVector share2 = FloatVector.broadcast(F, shares[sharesAt + 2]);
    FloatVector share3 = FloatVector.broadcast(F, shares[sharesAt + 3]);
    IntVector lane = IntVector.zero(I).addIndex(1);
    for (int t = 0; t < TOKENS; t += LANES) {
      long at = OffHeap.address(weights + 2L * t);
      FloatVector mass = KernelLanes.bf16(at).fma(share0, FloatVector.zero(F));
      mass = KernelLanes.bf16(OffHeap.address(at + 2L * stride)).fma(share1, mass);
      mass = KernelLanes.bf16(OffHeap.address(at + 4L * stride)).fma(share2, mass);
      mass = KernelLanes.bf16(OffHeap.address(at + 6L * stride)).fma(share3, mass);
      VectorMask<Float> taken = mass.compare(GE, floor);
      mass.compress(taken).intoArray(masses, n);
      lane.add(position + t).compress(taken.cast(I)).intoArray(positions, n);
      n += taken.trueCount();
    }
    return n;
  }

  static int candidates(
      long weights,
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
            KernelLanes.bf16(OffHeap.address(weights + 2L * (g * stride + t)))
                .fma(FloatVector.broadcast(F, shares[sharesAt + g]), mass);
      }
      VectorMask<Float> taken = mass.compare(GE, floor);
      // No branch, which would go either way too often; what is not taken is written over.
      mass.compress(taken).intoArray(masses, n);
      lane.add(position + t).compress(taken.cast(I)).intoArray(positions, n);
      n += taken.trueCount();
    }
    return n;
  }
}
