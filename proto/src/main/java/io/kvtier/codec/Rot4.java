package io.kvtier.codec;

import static io.kvtier.page.PageLayout.TOKENS;
import static java.nio.ByteOrder.LITTLE_ENDIAN;

import org.agrona.DirectBuffer;
import org.agrona.MutableDirectBuffer;

/**
 * The scalar rot4 codec: the specification that every faster version is held to. A vector's page
 * mean is subtracted, the rest is rotated ({@link Rotation}) and brought to unit variance by its
 * norm; each coordinate takes the nearest of 16 Lloyd-Max levels of a standard normal (Max,
 * Quantizing for minimum distortion, 1960). The scale restores the norm: r / ‖û‖.
 *
 * <p>Key codes are nested in three planes: sign, coarse (magnitude level 4..7) and two fine bits.
 * One plane is a 1-bit key, two a 2-bit key, all the full code. Sums run in the order of dimensions
 * (norms) and tokens (means), so that equal input gives equal bytes.
 */
public final class Rot4 {
  private static final float[] MAGNITUDES = {
    .150f, .410f, .677f, .965f, 1.284f, 1.649f, 2.097f, 2.751f
  };

  /** Between neighbouring magnitudes; a magnitude at a threshold takes the upper level. */
  private static final float[] THRESHOLDS = new float[MAGNITUDES.length - 1];

  /**
   * Mean magnitude of a standard normal below and above the coarse threshold: what two planes tell.
   */
  private static final float[] COARSE_MAGNITUDES = {.506f, 1.625f};

  static {
    for (int i = 0; i < THRESHOLDS.length; i++) {
      THRESHOLDS[i] = (MAGNITUDES[i] + MAGNITUDES[i + 1]) / 2;
    }
  }

  private Rot4() {}

  /**
   * Quantizes one rotated residual.
   *
   * @param y {@code [headDim]} from {@code at} on
   * @param codes receives {@code [headDim]} codes: sign in bit 3 (set: negative), magnitude level
   *     in bits 0..2
   * @return the fp16 scale's bits; 0 with all codes 0 for a vector of zeros
   */
  static short quantize(float[] y, int at, int headDim, byte[] codes) {
    float squares = 0;
    for (int i = 0; i < headDim; i++) {
      squares += y[at + i] * y[at + i];
    }
    float norm = (float) Math.sqrt(squares);
    if (norm == 0) {
      java.util.Arrays.fill(codes, 0, headDim, (byte) 0);
      return 0;
    }
    float toUnit = (float) Math.sqrt(headDim) / norm;
    float levelSquares = 0;
    for (int i = 0; i < headDim; i++) {
      float u = y[at + i] * toUnit;
      int level = level(Math.abs(u));
      codes[i] = (byte) (u < 0 ? level | 8 : level);
      levelSquares += MAGNITUDES[level] * MAGNITUDES[level];
    }
    return Float.floatToFloat16(norm / (float) Math.sqrt(levelSquares));
  }

  private static int level(float magnitude) {
    int level = 0;
    for (float threshold : THRESHOLDS) {
      level += magnitude >= threshold ? 1 : 0;
    }
    return level;
  }

  static float magnitude(int level) {
    return MAGNITUDES[level];
  }

  static float coarseMagnitude(int bit) {
    return COARSE_MAGNITUDES[bit];
  }

  /** The level of a code, in units of the scale. */
  static float valueOf(int code) {
    float magnitude = MAGNITUDES[code & 7];
    return (code & 8) == 0 ? magnitude : -magnitude;
  }

  /** Puts one token's key codes into the planes, which must hold zeros in that token's lane. */
  static void putKeyCodes(
      MutableDirectBuffer page,
      int signAt,
      int coarseAt,
      int fineAt,
      int token,
      byte[] codes,
      int headDim) {
    for (int i = 0; i < headDim; i++) {
      int code = codes[i];
      orBit(page, signAt + i * Long.BYTES, token, code >> 3 & 1);
      orBit(page, coarseAt + i * Long.BYTES, token, code >> 2 & 1);
      orBit(page, fineAt + 2 * i * Long.BYTES, token, code >> 1 & 1);
      orBit(page, fineAt + (2 * i + 1) * Long.BYTES, token, code & 1);
    }
  }

  private static void orBit(MutableDirectBuffer page, int at, int token, int bit) {
    page.putLong(at, page.getLong(at, LITTLE_ENDIAN) | (long) bit << token, LITTLE_ENDIAN);
  }

  /**
   * Decodes two planes of one head: the 2-bit sketch of 64 tokens' keys.
   *
   * @param sign buffer and byte offset of K_SIGN; {@code coarse} likewise of K_COARSE
   * @param levels receives {@code [headDim][64]} levels in units of each token's scale, rotated
   *     space
   */
  public static void sketchLevels(
      DirectBuffer sign,
      int signAt,
      DirectBuffer coarse,
      int coarseAt,
      int headDim,
      float[] levels) {
    int low = Float.floatToRawIntBits(COARSE_MAGNITUDES[0]);
    int flip = low ^ Float.floatToRawIntBits(COARSE_MAGNITUDES[1]);
    for (int i = 0; i < headDim; i++) {
      long s = sign.getLong(signAt + i * Long.BYTES, LITTLE_ENDIAN);
      long c = coarse.getLong(coarseAt + i * Long.BYTES, LITTLE_ENDIAN);
      int row = i * TOKENS;
      for (int t = 0; t < TOKENS; t++) {
        int magnitude = low ^ (flip & -(int) (c >>> t & 1));
        levels[row + t] = Float.intBitsToFloat(magnitude | (int) (s >>> t) << 31);
      }
    }
  }

  /**
   * Decodes all planes of one head.
   *
   * @param levels receives {@code [headDim][64]} levels in units of each token's scale, rotated
   *     space
   */
  public static void keyLevels(
      DirectBuffer sketch,
      int signAt,
      int coarseAt,
      DirectBuffer fine,
      int fineAt,
      int headDim,
      float[] levels) {
    for (int i = 0; i < headDim; i++) {
      long s = sketch.getLong(signAt + i * Long.BYTES, LITTLE_ENDIAN);
      long c = sketch.getLong(coarseAt + i * Long.BYTES, LITTLE_ENDIAN);
      long high = fine.getLong(fineAt + 2 * i * Long.BYTES, LITTLE_ENDIAN);
      long low = fine.getLong(fineAt + (2 * i + 1) * Long.BYTES, LITTLE_ENDIAN);
      int row = i * TOKENS;
      for (int t = 0; t < TOKENS; t++) {
        int level = (int) ((c >>> t & 1) << 2 | (high >>> t & 1) << 1 | (low >>> t & 1));
        int magnitude = Float.floatToRawIntBits(MAGNITUDES[level]);
        levels[row + t] = Float.intBitsToFloat(magnitude | (int) (s >>> t) << 31);
      }
    }
  }

  /** The inner product of a rotated query and one token's key code, without scale and mean. */
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
      int code =
          bit(sketch, signAt + i * Long.BYTES, token) << 3
              | bit(sketch, coarseAt + i * Long.BYTES, token) << 2
              | bit(fine, fineAt + 2 * i * Long.BYTES, token) << 1
              | bit(fine, fineAt + (2 * i + 1) * Long.BYTES, token);
      dot += rotatedQuery[queryAt + i] * valueOf(code);
    }
    return dot;
  }

  private static int bit(DirectBuffer buffer, int at, int token) {
    return (int) (buffer.getLong(at, LITTLE_ENDIAN) >>> token & 1);
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
    for (int i = 0; i < headDim; i += 2) {
      int pair = codes.getByte(row + i / 2);
      accumulator[at + i] += weight * valueOf(pair & 15);
      accumulator[at + i + 1] += weight * valueOf(pair >> 4 & 15);
    }
  }

  /** The fp16 at an index of a section of fp16. */
  public static float half(DirectBuffer section, int at, int index) {
    return Float.float16ToFloat(section.getShort(at + index * Short.BYTES, LITTLE_ENDIAN));
  }
}
