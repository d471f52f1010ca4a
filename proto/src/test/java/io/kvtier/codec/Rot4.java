package io.kvtier.codec;

import static io.kvtier.page.PageLayout.TOKENS;
import static java.nio.ByteOrder.LITTLE_ENDIAN;

import org.agrona.DirectBuffer;

/**
 * Levels and products of rot4 codes where they lie, in plain loops: what the kernels that score and
 * attend are held to. Offsets are those of a head's sections. In rotated space, in units of each
 * token's scale, without the page's mean.
 */
public final class Rot4 {
  private static final RotLevels LEVELS = RotLevels.of(4);

  private Rot4() {}

  /** Bytes of one bit plane of a head's keys. */
  private static int planeLength(int headDim) {
    return headDim / Byte.SIZE * TOKENS;
  }

  private static int bit(DirectBuffer plane, int planeAt, int dimension, int token) {
    int bits = plane.getByte(planeAt + dimension / Byte.SIZE * TOKENS + token);
    return bits >> (dimension % Byte.SIZE) & 1;
  }

  /**
   * Decodes two planes of one head: the 2-bit sketch of 64 tokens' keys.
   *
   * @param sign buffer and byte offset of K_SIGN; {@code coarse} likewise of K_COARSE
   * @param levels receives {@code [headDim][64]}
   */
  public static void sketchLevels(
      DirectBuffer sign,
      int signAt,
      DirectBuffer coarse,
      int coarseAt,
      int headDim,
      float[] levels) {
    for (int i = 0; i < headDim; i++) {
      for (int t = 0; t < TOKENS; t++) {
        int high = bit(sign, signAt, i, t) << 1 | bit(coarse, coarseAt, i, t);
        levels[i * TOKENS + t] = LEVELS.coarseLevel(high);
      }
    }
  }

  /** Decodes all planes of one head: {@code levels} receives {@code [headDim][64]}. */
  public static void keyLevels(
      DirectBuffer sketch,
      int signAt,
      int coarseAt,
      DirectBuffer fine,
      int fineAt,
      int headDim,
      float[] levels) {
    for (int i = 0; i < headDim; i++) {
      for (int t = 0; t < TOKENS; t++) {
        int code = keyCode(sketch, signAt, coarseAt, fine, fineAt, i, t, headDim);
        levels[i * TOKENS + t] = LEVELS.level(code);
      }
    }
  }

  private static int keyCode(
      DirectBuffer sketch,
      int signAt,
      int coarseAt,
      DirectBuffer fine,
      int fineAt,
      int dimension,
      int token,
      int headDim) {
    return bit(sketch, signAt, dimension, token) << 3
        | bit(sketch, coarseAt, dimension, token) << 2
        | bit(fine, fineAt, dimension, token) << 1
        | bit(fine, fineAt + planeLength(headDim), dimension, token);
  }

  /** The inner product of a rotated query and one token's key code. */
  public static float keyDot(
      DirectBuffer sketch,
      int signAt,
      int coarseAt,
      DirectBuffer fine,
      int fineAt,
      int token,
      float[] rotatedQuery,
      int queryAt,
      int headDim) {
    float dot = 0;
    for (int i = 0; i < headDim; i++) {
      int code = keyCode(sketch, signAt, coarseAt, fine, fineAt, i, token, headDim);
      dot += rotatedQuery[queryAt + i] * LEVELS.level(code);
    }
    return dot;
  }

  /**
   * Adds {@code weight} times one token's value code to a rotated accumulator; the weight includes
   * the token's scale.
   */
  public static void addValue(
      DirectBuffer codes,
      int codesAt,
      int token,
      float weight,
      float[] accumulator,
      int at,
      int headDim) {
    int row = codesAt + token * (headDim / 2);
    for (int from = 0; from < headDim; from += 32) {
      int half = Math.min(32, headDim - from) / 2;
      for (int j = 0; j < half; j++) {
        int pair = codes.getByte(row + from / 2 + j);
        accumulator[at + from + j] += weight * LEVELS.level(pair & 15);
        accumulator[at + from + half + j] += weight * LEVELS.level(pair >> 4 & 15);
      }
    }
  }

  /** The fp16 at an index of a section of fp16. */
  public static float half(DirectBuffer section, int at, int index) {
    return Float.float16ToFloat(section.getShort(at + index * Short.BYTES, LITTLE_ENDIAN));
  }
}
