package io.kvtier.attention;

import static io.kvtier.page.PageLayout.TOKENS;
import static jdk.incubator.vector.VectorOperators.BITWISE_BLEND;
import static jdk.incubator.vector.VectorOperators.LSHL;
import static jdk.incubator.vector.VectorOperators.LSHR;

import java.lang.foreign.ValueLayout;
import jdk.incubator.vector.ByteVector;
import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.IntVector;
import jdk.incubator.vector.LongVector;
import jdk.incubator.vector.VectorSpecies;

/**
 * Keys of a page from their full rot4 codes, lane = token, or one token's, lane = dimension. A code
 * is turned into its level by a look-up in a register; each is decoded once for four queries.
 */
final class CodeKernels {
  private static final VectorSpecies<Float> F = KernelLanes.F;
  private static final VectorSpecies<Integer> I = KernelLanes.I;
  private static final VectorSpecies<Byte> B = ByteVector.SPECIES_PREFERRED;
  private static final VectorSpecies<Long> L = LongVector.SPECIES_PREFERRED;
  private static final int LANES = KernelLanes.LANES;

  private static final ValueLayout.OfByte BYTE = ValueLayout.JAVA_BYTE;

  private CodeKernels() {}

  /**
   * Joins the four planes of a page: from rows of eight dimensions' single bits to rows of two
   * dimensions' codes, in two exchanges of bits between neighbouring planes. Row 4j + s holds
   * dimension 8j + s in its lower halves, 8j + s + 4 in its upper ones.
   *
   * @param out receives {@code [headDim / 2][64]} bytes
   */
  static void joinPlanes(HeadOffsets at, long sketch, long codes, byte[] out) {
    long sign = sketch + at.planes();
    long coarse = sign + at.planeLength();
    long middle = codes + at.fine();
    long last = middle + at.planeLength();
    LongVector pairs = LongVector.broadcast(L, 0x5555_5555_5555_5555L);
    LongVector halves = LongVector.broadcast(L, 0x3333_3333_3333_3333L);
    int rows = at.planeLength() / TOKENS;
    for (int half = 0; half < TOKENS; half += B.length()) {
      for (int row = 0; row < rows; row++) {
        int i = row * TOKENS + half;
        int to = row * 4 * TOKENS + half;
        LongVector a = KernelLanes.row(sign + i);
        LongVector b = KernelLanes.row(coarse + i);
        LongVector c = KernelLanes.row(middle + i);
        LongVector d = KernelLanes.row(last + i);
        // Upper bits of even and of odd dimensions, then their lower bits, two bits a dimension.
        LongVector evenUpper = a.lanewise(LSHL, 1).lanewise(BITWISE_BLEND, b, pairs);
        LongVector oddUpper = a.lanewise(BITWISE_BLEND, b.lanewise(LSHR, 1), pairs);
        LongVector evenLower = c.lanewise(LSHL, 1).lanewise(BITWISE_BLEND, d, pairs);
        LongVector oddLower = c.lanewise(BITWISE_BLEND, d.lanewise(LSHR, 1), pairs);
        evenUpper
            .lanewise(LSHL, 2)
            .lanewise(BITWISE_BLEND, evenLower, halves)
            .reinterpretAsBytes()
            .intoArray(out, to);
        oddUpper
            .lanewise(LSHL, 2)
            .lanewise(BITWISE_BLEND, oddLower, halves)
            .reinterpretAsBytes()
            .intoArray(out, to + TOKENS);
        evenUpper
            .lanewise(BITWISE_BLEND, evenLower.lanewise(LSHR, 2), halves)
            .reinterpretAsBytes()
            .intoArray(out, to + 2 * TOKENS);
        oddUpper
            .lanewise(BITWISE_BLEND, oddLower.lanewise(LSHR, 2), halves)
            .reinterpretAsBytes()
            .intoArray(out, to + 3 * TOKENS);
      }
    }
  }

  /**
   * Scores tokens {@code from} to {@code to} for query {@code g}, without scale and mean.
   *
   * @param codes as {@link #joinPlanes} leaves them
   */
  static void scoreOne(GroupQuery query, int g, byte[] codes, int from, int to, float[] scores) {
    float[] q = query.spread;
    int rows = query.headDim() / 2;
    for (int t = from; t < to; t += LANES) {
      FloatVector sum = FloatVector.zero(F);
      FloatVector other = sum;
      int qAt = g * query.headDim();
      for (int row = 0; row < rows; row++) {
        IntVector pair = KernelLanes.pair(codes, row * TOKENS + t);
        sum = KernelLanes.levels(pair.and(15)).fma(FloatVector.broadcast(F, q[qAt]), sum);
        other =
            KernelLanes.levels(pair.lanewise(LSHR, 4))
                .fma(FloatVector.broadcast(F, q[qAt + 1]), other);
        qAt += 2;
      }
      sum.add(other).intoArray(scores, g * TOKENS + t);
    }
  }

  /** As {@link #scoreOne} for queries {@code g} to {@code g + 3}, two vectors of tokens at once. */
  static void scoreFour(GroupQuery query, int g, byte[] codes, int from, int to, float[] scores) {
    for (int t = from; t < to; t += 2 * LANES) {
      scoreFour(
          query.spread, g * query.headDim(), query.headDim() / 2, codes, t, scores, g * TOKENS + t);
    }
  }

  private static void scoreFour(
      float[] q, int queryAt, int rows, byte[] codes, int token, float[] scores, int at) {
    FloatVector left0 = FloatVector.zero(F);
    FloatVector left1 = left0;
    FloatVector left2 = left0;
    FloatVector left3 = left0;
    FloatVector right0 = left0;
    FloatVector right1 = left0;
    FloatVector right2 = left0;
    FloatVector right3 = left0;
    for (int row = 0; row < rows; row++) {
      int qAt = queryAt + 8 * row;
      IntVector leftPair = KernelLanes.pair(codes, row * TOKENS + token);
      IntVector rightPair = KernelLanes.pair(codes, row * TOKENS + token + LANES);
      FloatVector leftLow = KernelLanes.levels(leftPair.and(15));
      FloatVector rightLow = KernelLanes.levels(rightPair.and(15));
      FloatVector weight = FloatVector.broadcast(F, q[qAt]);
      left0 = leftLow.fma(weight, left0);
      right0 = rightLow.fma(weight, right0);
      weight = FloatVector.broadcast(F, q[qAt + 1]);
      left1 = leftLow.fma(weight, left1);
      right1 = rightLow.fma(weight, right1);
      weight = FloatVector.broadcast(F, q[qAt + 2]);
      left2 = leftLow.fma(weight, left2);
      right2 = rightLow.fma(weight, right2);
      weight = FloatVector.broadcast(F, q[qAt + 3]);
      left3 = leftLow.fma(weight, left3);
      right3 = rightLow.fma(weight, right3);
      FloatVector leftHigh = KernelLanes.levels(leftPair.lanewise(LSHR, 4));
      FloatVector rightHigh = KernelLanes.levels(rightPair.lanewise(LSHR, 4));
      weight = FloatVector.broadcast(F, q[qAt + 4]);
      left0 = leftHigh.fma(weight, left0);
      right0 = rightHigh.fma(weight, right0);
      weight = FloatVector.broadcast(F, q[qAt + 5]);
      left1 = leftHigh.fma(weight, left1);
      right1 = rightHigh.fma(weight, right1);
      weight = FloatVector.broadcast(F, q[qAt + 6]);
      left2 = leftHigh.fma(weight, left2);
      right2 = rightHigh.fma(weight, right2);
      weight = FloatVector.broadcast(F, q[qAt + 7]);
      left3 = leftHigh.fma(weight, left3);
      right3 = rightHigh.fma(weight, right3);
    }
    left0.intoArray(scores, at);
    right0.intoArray(scores, at + LANES);
    left1.intoArray(scores, at + TOKENS);
    right1.intoArray(scores, at + TOKENS + LANES);
    left2.intoArray(scores, at + 2 * TOKENS);
    right2.intoArray(scores, at + 2 * TOKENS + LANES);
    left3.intoArray(scores, at + 3 * TOKENS);
    right3.intoArray(scores, at + 3 * TOKENS + LANES);
  }

  // ---- one token's key

  /**
   * Gathers one token's codes: a byte of each plane is eight dimensions' bits, spread to every
   * fourth bit of a word.
   */
  static void gather(HeadOffsets at, long sketch, long codes, int token, int[] words) {
    long sign = sketch + at.planes() + token;
    long fine = codes + at.fine() + token;
    int plane = at.planeLength();
    int row = 0;
    for (int i = 0; i < plane; i += TOKENS) {
      words[row++] =
          Integer.expand(OffHeap.ALL.get(BYTE, sign + i), 0x8888_8888)
              | Integer.expand(OffHeap.ALL.get(BYTE, sign + plane + i), 0x4444_4444)
              | Integer.expand(OffHeap.ALL.get(BYTE, fine + i), 0x2222_2222)
              | Integer.expand(OffHeap.ALL.get(BYTE, fine + plane + i), 0x1111_1111);
    }
  }

  /** Scores gathered codes for query {@code g}, without scale and mean. */
  static float scoreWords(GroupQuery query, int g, int[] words) {
    int room = words.length;
    FloatVector sum = FloatVector.zero(F);
    for (int j = 0; j < room; j += LANES) {
      IntVector codes = IntVector.fromArray(I, words, j);
      int at = g * 8 * room + j;
      for (int k = 0; k < 8; k++) {
        FloatVector level = KernelLanes.levels(codes.and(15));
        sum = level.fma(FloatVector.fromArray(F, query.across, at), sum);
        codes = codes.lanewise(LSHR, 4);
        at += room;
      }
    }
    return KernelLanes.sum(sum);
  }

  /**
   * As {@link #scoreWords} for queries {@code g} to {@code g + 3}.
   *
   * @param lanes receives {@code [4][lanes]}, still to be added up
   */
  static void scoreWordsFour(GroupQuery query, int g, int[] words, float[] lanes) {
    float[] q = query.across;
    int room = words.length;
    int stride = 8 * room;
    FloatVector sum0 = FloatVector.zero(F);
    FloatVector sum1 = sum0;
    FloatVector sum2 = sum0;
    FloatVector sum3 = sum0;
    for (int j = 0; j < room; j += LANES) {
      IntVector codes = IntVector.fromArray(I, words, j);
      int at = g * stride + j;
      for (int k = 0; k < 8; k++) {
        FloatVector level = KernelLanes.levels(codes.and(15));
        sum0 = level.fma(FloatVector.fromArray(F, q, at), sum0);
        sum1 = level.fma(FloatVector.fromArray(F, q, at + stride), sum1);
        sum2 = level.fma(FloatVector.fromArray(F, q, at + 2 * stride), sum2);
        sum3 = level.fma(FloatVector.fromArray(F, q, at + 3 * stride), sum3);
        codes = codes.lanewise(LSHR, 4);
        at += room;
      }
    }
    sum0.intoArray(lanes, 0);
    sum1.intoArray(lanes, LANES);
    sum2.intoArray(lanes, 2 * LANES);
    sum3.intoArray(lanes, 3 * LANES);
  }
}
