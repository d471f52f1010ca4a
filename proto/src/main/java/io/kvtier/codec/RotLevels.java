package io.kvtier.codec;

import static io.kvtier.KvtierException.requireInRange;

/**
 * The levels that a rot codec brings a coordinate of unit variance to: the Lloyd-Max levels of a
 * standard normal (Max, Quantizing for minimum distortion, 1960), symmetrical about 0. The code is
 * the rank of the level in rising order, 0..2^bits - 1, so its highest bit tells the sign (1: not
 * negative) and the next whether the magnitude is large, the other way round for negative ones.
 * Immutable.
 */
public final class RotLevels {
  /** Code c of what rot8's levels leave stands for (c - this) steps: the middle of its cell. */
  public static final float REST_CENTER = 7.5f;

  /** What one plane alone tells of a coordinate: the mean magnitude, nearly, of any. */
  public static final float SIGN_LEVEL = .800f;

  private static final int BITS_MAX = 4;

  /** By bits: the magnitudes, rising. */
  private static final float[][] MAGNITUDES = {
    {.800f},
    {.4465f, 1.504f},
    {.237f, .749f, 1.339f, 2.155f},
    {.150f, .410f, .677f, .965f, 1.284f, 1.649f, 2.097f, 2.751f}
  };

  /**
   * By bits: what two planes tell of the magnitude, below and above the coarse threshold: the mean
   * magnitudes of a standard normal there.
   */
  private static final float[][] COARSE = {
    {.800f, .800f}, {.4465f, 1.504f}, {.4764f, 1.5607f}, {.506f, 1.625f}
  };

  private static final RotLevels[] BY_BITS = new RotLevels[BITS_MAX];

  static {
    for (int bits = 1; bits <= BITS_MAX; bits++) {
      BY_BITS[bits - 1] = new RotLevels(bits);
    }
  }

  private final int bits;
  private final float[] levels;

  private RotLevels(int bits) {
    this.bits = bits;
    float[] magnitudes = MAGNITUDES[bits - 1];
    int half = magnitudes.length;
    this.levels = new float[2 * half];
    for (int i = 0; i < half; i++) {
      levels[half + i] = magnitudes[i];
      levels[half - 1 - i] = -magnitudes[i];
    }
  }

  /** The levels of a number of bits, 1..4. */
  public static RotLevels of(int bits) {
    requireInRange("bits", bits, 1, BITS_MAX);
    return BY_BITS[bits - 1];
  }

  public int bits() {
    return bits;
  }

  /** Levels, or codes: 2^bits. */
  public int count() {
    return levels.length;
  }

  /** The level of a code, in units of the vector's scale. */
  public float level(int code) {
    return levels[code];
  }

  /** The fp32 midpoint between levels {@code code - 1} and {@code code}, 1..2^bits - 1. */
  public float threshold(int code) {
    return (levels[code - 1] + levels[code]) / 2;
  }

  /**
   * What two planes tell of a coordinate, in units of the scale, by the code's two highest bits,
   * 0..3, rising. For two bits these are the levels; for one the second bit does not matter.
   */
  public float coarseLevel(int highBits) {
    float magnitude = COARSE[bits - 1][highBits == 0 || highBits == 3 ? 1 : 0];
    return highBits < 2 ? -magnitude : magnitude;
  }

  /**
   * The weight of a plane, 0 or 1, in {@link #coarseLevel}, which is additive: the sum over both
   * planes of weight where the bit is 1, -weight where it is 0, up to fp32 rounding.
   */
  public float planeWeight(int plane) {
    float[] magnitudes = COARSE[bits - 1];
    return plane == 0 ? (magnitudes[1] + magnitudes[0]) / 2 : (magnitudes[1] - magnitudes[0]) / 2;
  }
}
