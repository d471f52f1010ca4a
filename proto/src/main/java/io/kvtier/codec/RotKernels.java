package io.kvtier.codec;

import static io.kvtier.codec.Lanes.FLOATS;
import static io.kvtier.codec.Lanes.LANES;
import static io.kvtier.page.PageLayout.TOKENS;

import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.IntVector;
import jdk.incubator.vector.VectorOperators;

/**
 * The steps of the rot codecs over one head of a page. Rotated vectors lie chunk-major, {@code
 * [headDim / lanes][64 + 1][lanes]}: one vector holds neighbouring dimensions of one token, and
 * loops run over tokens, long enough to be worth it. The vector to spare keeps the chunks of one
 * token from falling into one set of the cache. Butterflies of a stride below the lanes go between
 * the lanes of a vector; those above between the vectors of two chunks.
 */
final class RotKernels {
  /** Partial sums of a norm. */
  static final int PARTIALS = 16;

  /**
   * Magnitudes are looked up by cells a quarter wide, about multiples of a quarter: no cell has
   * more than one threshold, and all beyond the last cell have the greatest level.
   */
  static final float CELLS_PER_UNIT = 4;

  /** By cell: bits of the threshold within it, 0 where there is none. */
  static final int THRESHOLDS = 0;

  /** By cell: the code of a magnitude at or above the cell's threshold. */
  static final int UPPER_CODES = Lanes.TABLE;

  /** By code: bits of the level's square. */
  static final int SQUARES = 2 * Lanes.TABLE;

  static final int TABLES_LENGTH = 3 * Lanes.TABLE;

  /** Vectors from one chunk to the next. */
  private static final int PITCH = TOKENS + 1;

  /** Elements from one chunk to the next. */
  private static final int CHUNK = PITCH * LANES;

  /** 2^23: added to a small number it rounds to an integer, left in the lowest bits. */
  private static final float ROUNDING = 0x1p23f;

  private static final float CELLED_MAX = (Lanes.TABLE - 1) / CELLS_PER_UNIT;

  private RotKernels() {}

  /** Elements of a head's rotated vectors. */
  static int scratchLength(int headDim) {
    return headDim * PITCH;
  }

  /** Copies rows {@code [tokens][stride]}, which may lie far apart, into chunks. */
  static void gather(float[] rows, int at, int stride, int tokens, int headDim, float[] y) {
    for (int t = 0; t < tokens; t++) {
      int row = at + t * stride;
      int to = t * LANES;
      for (int i = 0; i < headDim; i += LANES) {
        FloatVector.fromArray(FLOATS, rows, row + i).intoArray(y, to + i * PITCH);
      }
    }
  }

  /** Sums over tokens, in their order, {@code [headDim]}. */
  static void sumTokens(float[] y, int headDim, int tokens, float[] sums) {
    // Two chunks at a time, for additions wait for each other; the last may come up twice.
    for (int i = 0; i < headDim; i += 2 * LANES) {
      int j = Math.min(i + LANES, headDim - LANES);
      int apart = (j - i) * PITCH;
      int from = i * PITCH;
      FloatVector a = FloatVector.zero(FLOATS);
      FloatVector b = a;
      for (int k = from; k < from + tokens * LANES; k += LANES) {
        a = a.add(FloatVector.fromArray(FLOATS, y, k));
        b = b.add(FloatVector.fromArray(FLOATS, y, k + apart));
      }
      a.intoArray(sums, i);
      b.intoArray(sums, j);
    }
  }

  /** Subtracts the mean, multiplies by the signs, and does the butterflies within vectors. */
  static void within(float[] y, float[] mean, float[] signs, int headDim, int tokens) {
    IntVector p1 = Lanes.partners(0);
    IntVector p2 = Lanes.partners(1);
    IntVector p4 = Lanes.partners(2);
    IntVector p8 = Lanes.partners(3);
    FloatVector s1 = Lanes.sides(0);
    FloatVector s2 = Lanes.sides(1);
    FloatVector s4 = Lanes.sides(2);
    FloatVector s8 = Lanes.sides(3);
    for (int i = 0; i < headDim; i += LANES) {
      FloatVector m = FloatVector.fromArray(FLOATS, mean, i);
      FloatVector sign = FloatVector.fromArray(FLOATS, signs, i);
      int from = i * PITCH;
      for (int k = from; k < from + tokens * LANES; k += LANES) {
        FloatVector x = FloatVector.fromArray(FLOATS, y, k).sub(m).mul(sign);
        x = Lanes.butterflies(x, p1, s1);
        x = Lanes.butterflies(x, p2, s2);
        x = Lanes.butterflies(x, p4, s4);
        if (LANES > 8) {
          x = Lanes.butterflies(x, p8, s8);
        }
        x.intoArray(y, k);
      }
    }
  }

  /** The butterflies between chunks; what is left is to multiply by the norms. */
  static void between(float[] y, int headDim, int tokens) {
    for (int begin = 0; begin < headDim; ) {
      int block = Integer.highestOneBit(headDim - begin);
      int first = begin * PITCH;
      int chunks = block / LANES;
      for (int half = 1; half < chunks; half *= 4) {
        boolean two = 2 * half < chunks;
        for (int chunk = 0; chunk < chunks; chunk += (two ? 4 : 2) * half) {
          for (int j = chunk; j < chunk + half; j++) {
            if (two) {
              butterflies4(y, first + j * CHUNK, half * CHUNK, tokens * LANES);
            } else {
              butterflies2(y, first + j * CHUNK, half * CHUNK, tokens * LANES);
            }
          }
        }
      }
      begin += block;
    }
  }

  private static void butterflies2(float[] y, int at, int half, int length) {
    for (int i = at; i < at + length; i += LANES) {
      FloatVector a = FloatVector.fromArray(FLOATS, y, i);
      FloatVector b = FloatVector.fromArray(FLOATS, y, i + half);
      a.add(b).intoArray(y, i);
      a.sub(b).intoArray(y, i + half);
    }
  }

  /** Two strides at once: half, then twice that. */
  private static void butterflies4(float[] y, int at, int half, int length) {
    for (int i = at; i < at + length; i += LANES) {
      FloatVector a = FloatVector.fromArray(FLOATS, y, i);
      FloatVector b = FloatVector.fromArray(FLOATS, y, i + half);
      FloatVector c = FloatVector.fromArray(FLOATS, y, i + 2 * half);
      FloatVector d = FloatVector.fromArray(FLOATS, y, i + 3 * half);
      FloatVector ab = a.add(b);
      FloatVector cd = c.add(d);
      ab.add(cd).intoArray(y, i);
      ab.sub(cd).intoArray(y, i + 2 * half);
      ab = a.sub(b);
      cd = c.sub(d);
      ab.add(cd).intoArray(y, i + half);
      ab.sub(cd).intoArray(y, i + 3 * half);
    }
  }

  /**
   * Partial sums of the squares of each token's y: partials {@code first} to {@code first + lanes}
   * of 16, over every dimension that is one of them modulo 16.
   *
   * @param norms {@code [headDim]}, still to be multiplied by
   * @param partials {@code [64][16]}
   */
  static void sumSquares(
      float[] y, float[] norms, int headDim, int tokens, int first, float[] partials) {
    for (int t = 0; t < tokens; t++) {
      FloatVector sum = FloatVector.zero(FLOATS);
      int from = t * LANES;
      for (int i = first; i < headDim; i += PARTIALS) {
        FloatVector x =
            FloatVector.fromArray(FLOATS, y, from + i * PITCH)
                .mul(FloatVector.fromArray(FLOATS, norms, i));
        sum = sum.add(x.mul(x));
      }
      sum.intoArray(partials, t * PARTIALS + first);
    }
  }

  /** The tree over each token's 16 partial sums: 8 apart, then 4, 2, 1. */
  static void addPartials(float[] partials, int tokens, float[] sums) {
    IntVector p8 = Lanes.partners(3);
    IntVector p4 = Lanes.partners(2);
    IntVector p2 = Lanes.partners(1);
    IntVector p1 = Lanes.partners(0);
    for (int t = 0; t < tokens; t++) {
      int at = t * PARTIALS;
      FloatVector sum = FloatVector.fromArray(FLOATS, partials, at);
      FloatVector upper =
          LANES < PARTIALS
              ? FloatVector.fromArray(FLOATS, partials, at + PARTIALS - LANES)
              : Lanes.exchange(sum, p8);
      sum = sum.add(upper);
      sum = sum.add(Lanes.exchange(sum, p4));
      sum = sum.add(Lanes.exchange(sum, p2));
      sum = sum.add(Lanes.exchange(sum, p1));
      sums[t] = sum.lane(0);
    }
  }

  /**
   * Codes rows, and makes partial sums, as {@link #sumSquares} does, of the squares of the levels.
   *
   * @param toUnits by token: the factor that makes y a vector of unit variance
   * @param tables {@link #THRESHOLDS}, {@link #UPPER_CODES}, {@link #SQUARES}
   * @param codes {@code [64][codeStride]}
   */
  static void quantize(
      float[] y,
      float[] norms,
      int headDim,
      int tokens,
      float[] toUnits,
      int[] tables,
      int bits,
      byte[] codes,
      int codeStride,
      int first,
      float[] partials) {
    IntVector thresholdsLow = Lanes.low(tables, THRESHOLDS);
    IntVector thresholdsHigh = Lanes.high(tables, THRESHOLDS);
    IntVector upperLow = Lanes.low(tables, UPPER_CODES);
    IntVector upperHigh = Lanes.high(tables, UPPER_CODES);
    IntVector squaresLow = Lanes.low(tables, SQUARES);
    IntVector squaresHigh = Lanes.high(tables, SQUARES);
    FloatVector perUnit = FloatVector.broadcast(FLOATS, CELLS_PER_UNIT);
    FloatVector rounding = FloatVector.broadcast(FLOATS, ROUNDING);
    FloatVector zero = FloatVector.zero(FLOATS);
    for (int t = 0; t < tokens; t++) {
      FloatVector sum = zero;
      FloatVector toUnit = FloatVector.broadcast(FLOATS, toUnits[t]);
      int from = t * LANES;
      int to = t * codeStride;
      for (int i = first; i < headDim; i += PARTIALS) {
        FloatVector x = FloatVector.fromArray(FLOATS, y, from + i * PITCH);
        FloatVector norm = FloatVector.fromArray(FLOATS, norms, i);
        // The sum with +0 rounds nothing, and makes -0 +0, which is not negative.
        IntVector u = x.mul(norm).fma(toUnit, zero).reinterpretAsInts();
        IntVector negative = u.lanewise(VectorOperators.ASHR, 31);
        // A tie takes the larger code, the smaller magnitude where negative: so one bit less
        // there. Bits of magnitudes compare as the magnitudes do.
        IntVector magnitude = u.and(0x7FFF_FFFF).add(negative);
        FloatVector bounded =
            magnitude.min(Float.floatToRawIntBits(CELLED_MAX)).reinterpretAsFloats();
        IntVector cell = bounded.fma(perUnit, rounding).reinterpretAsInts().and(Lanes.TABLE - 1);
        IntVector threshold = Lanes.lookUp(cell, thresholdsLow, thresholdsHigh);
        IntVector below = magnitude.sub(threshold).lanewise(VectorOperators.ASHR, 31);
        IntVector code = Lanes.lookUp(cell, upperLow, upperHigh).add(below);
        sum = sum.add(Lanes.lookUp(code, squaresLow, squaresHigh).reinterpretAsFloats());
        IntVector mirror = negative.lanewise(VectorOperators.LSHR, Integer.SIZE - bits);
        Lanes.storeCodes(code.lanewise(VectorOperators.XOR, mirror), codes, to + i);
      }
      sum.intoArray(partials, t * PARTIALS + first);
    }
  }

  /**
   * What the codes leave of rotated vectors, in place of these, and how wide it is.
   *
   * @param norms {@code [headDim]}, which y is still to be multiplied by, and no more afterwards
   * @param codes {@code [64][codeStride]}
   * @param scales by token, as they are stored
   * @param levels by code: bits of the level
   * @param widest receives by token the greatest magnitude of what is left
   */
  static void leave(
      float[] y,
      float[] norms,
      int headDim,
      int tokens,
      byte[] codes,
      int codeStride,
      float[] scales,
      int[] levels,
      float[] widest) {
    IntVector low = Lanes.low(levels, 0);
    IntVector high = Lanes.high(levels, 0);
    for (int t = 0; t < tokens; t++) {
      FloatVector scale = FloatVector.broadcast(FLOATS, scales[t]);
      FloatVector most = FloatVector.zero(FLOATS);
      int from = t * LANES;
      int code = t * codeStride;
      for (int i = 0; i < headDim; i += LANES) {
        IntVector level = Lanes.lookUp(Lanes.loadCodes(codes, code + i), low, high);
        FloatVector left =
            FloatVector.fromArray(FLOATS, y, from + i * PITCH)
                .mul(FloatVector.fromArray(FLOATS, norms, i))
                .sub(level.reinterpretAsFloats().mul(scale));
        left.intoArray(y, from + i * PITCH);
        most = most.max(left.abs());
      }
      widest[t] = most.reduceLanes(VectorOperators.MAX);
    }
  }

  /**
   * Codes what {@link #leave} has left in 16 equal steps about 0.
   *
   * @param steps by token; where 0, the codes are undefined
   */
  static void step(
      float[] y, int headDim, int tokens, float[] steps, byte[] codes, int codeStride) {
    FloatVector zero = FloatVector.zero(FLOATS);
    FloatVector half = FloatVector.broadcast(FLOATS, ScalarRotCodec.REST_HALF);
    for (int t = 0; t < tokens; t++) {
      FloatVector step = FloatVector.broadcast(FLOATS, steps[t]);
      int from = t * LANES;
      int to = t * codeStride;
      for (int i = 0; i < headDim; i += LANES) {
        FloatVector cell =
            FloatVector.fromArray(FLOATS, y, from + i * PITCH).div(step).add(half).max(zero);
        IntVector code = (IntVector) cell.convertShape(VectorOperators.F2I, Lanes.INTS, 0);
        Lanes.storeCodes(code.min(ScalarRotCodec.REST_MAX), codes, to + i);
      }
    }
  }

  /**
   * Rotated vectors of codes and of what they leave.
   *
   * @param rest codes of what is left, {@code [64][codeStride]} as {@code codes}
   * @param steps by token
   * @param levels by code: bits of the level
   */
  static void restore(
      byte[] codes,
      byte[] rest,
      int codeStride,
      int tokens,
      float[] scales,
      float[] steps,
      int[] levels,
      int headDim,
      float[] y) {
    IntVector low = Lanes.low(levels, 0);
    IntVector high = Lanes.high(levels, 0);
    for (int t = 0; t < tokens; t++) {
      FloatVector scale = FloatVector.broadcast(FLOATS, scales[t]);
      FloatVector step = FloatVector.broadcast(FLOATS, steps[t]);
      int to = t * LANES;
      int from = t * codeStride;
      for (int i = 0; i < headDim; i += LANES) {
        IntVector level = Lanes.lookUp(Lanes.loadCodes(codes, from + i), low, high);
        FloatVector left =
            ((FloatVector)
                    Lanes.loadCodes(rest, from + i).convertShape(VectorOperators.I2F, FLOATS, 0))
                .sub(RotLevels.REST_CENTER)
                .mul(step);
        level.reinterpretAsFloats().mul(scale).add(left).intoArray(y, to + i * PITCH);
      }
    }
  }

  /**
   * Levels of codes times scales, and the butterflies within vectors: the begin of the way back.
   *
   * @param levels by code: bits of the level
   */
  static void dequantize(
      byte[] codes,
      int codeStride,
      int tokens,
      float[] scales,
      int[] levels,
      int headDim,
      float[] y) {
    IntVector p1 = Lanes.partners(0);
    IntVector p2 = Lanes.partners(1);
    IntVector p4 = Lanes.partners(2);
    IntVector p8 = Lanes.partners(3);
    FloatVector s1 = Lanes.sides(0);
    FloatVector s2 = Lanes.sides(1);
    FloatVector s4 = Lanes.sides(2);
    FloatVector s8 = Lanes.sides(3);
    IntVector low = Lanes.low(levels, 0);
    IntVector high = Lanes.high(levels, 0);
    for (int i = 0; i < headDim; i += LANES) {
      int to = i * PITCH;
      for (int t = 0; t < tokens; t++) {
        IntVector level = Lanes.lookUp(Lanes.loadCodes(codes, t * codeStride + i), low, high);
        FloatVector x = level.reinterpretAsFloats().mul(scales[t]);
        x = Lanes.butterflies(x, p1, s1);
        x = Lanes.butterflies(x, p2, s2);
        x = Lanes.butterflies(x, p4, s4);
        if (LANES > 8) {
          x = Lanes.butterflies(x, p8, s8);
        }
        x.intoArray(y, to + t * LANES);
      }
    }
  }

  /**
   * Multiplies by norms and signs, adds the mean, and writes the rows: the end of the way back.
   *
   * @param factors {@code [headDim]} norm times sign
   */
  static void scatter(
      float[] y,
      int headDim,
      float[] factors,
      float[] mean,
      float[] rows,
      int at,
      int stride,
      int tokens) {
    int t = 0;
    // Four rows at a time share the loads of factor and mean.
    for (; t + 4 <= tokens; t += 4) {
      int from = t * LANES;
      int row = at + t * stride;
      for (int i = 0; i < headDim; i += LANES) {
        FloatVector factor = FloatVector.fromArray(FLOATS, factors, i);
        FloatVector m = FloatVector.fromArray(FLOATS, mean, i);
        int k = from + i * PITCH;
        int to = row + i;
        FloatVector.fromArray(FLOATS, y, k).mul(factor).add(m).intoArray(rows, to);
        FloatVector.fromArray(FLOATS, y, k + LANES).mul(factor).add(m).intoArray(rows, to + stride);
        FloatVector.fromArray(FLOATS, y, k + 2 * LANES)
            .mul(factor)
            .add(m)
            .intoArray(rows, to + 2 * stride);
        FloatVector.fromArray(FLOATS, y, k + 3 * LANES)
            .mul(factor)
            .add(m)
            .intoArray(rows, to + 3 * stride);
      }
    }
    for (; t < tokens; t++) {
      int from = t * LANES;
      int row = at + t * stride;
      for (int i = 0; i < headDim; i += LANES) {
        FloatVector.fromArray(FLOATS, y, from + i * PITCH)
            .mul(FloatVector.fromArray(FLOATS, factors, i))
            .add(FloatVector.fromArray(FLOATS, mean, i))
            .intoArray(rows, row + i);
      }
    }
  }
}
