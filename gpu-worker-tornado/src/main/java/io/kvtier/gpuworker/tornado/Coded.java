package io.kvtier.gpuworker.tornado;

import uk.ac.manchester.tornado.api.math.TornadoMath;
import uk.ac.manchester.tornado.api.types.arrays.FloatArray;
import uk.ac.manchester.tornado.api.types.arrays.IntArray;

/**
 * How kernels read bytes, halves and rows out of arrays of ints. Written so that the same code is
 * right in Java and in what TornadoVM makes of it, which turns {@code >>>} into a signed shift,
 * subtracts from masked bytes without sign, and knows no reinterpreting of bits: shifts are {@code
 * (x >> n) & mask}, and numbers are put together from mantissa and power of two, which is exact.
 */
final class Coded {
  // Where a step's floats have constants.

  /** {@code [256]}: element e is 2^(e - 150), what a mantissa of 24 bits counts in. */
  static final int POWERS = StepLayout.CONSTANTS;

  /** {@code [16]}: the levels of rot4. */
  static final int LEVELS = POWERS + 256;

  private static final float HALF_UNIT = 0x1p-25f;

  // e^x as the processor's sketch kernels compute it, so that both round to the same weights.
  private static final float LOG2_E = 1.442695f;
  private static final float EXPONENT_MAX = 125.5f;
  private static final float P0 = .9999281f;
  private static final float P1 = .693261f;
  private static final float P2 = .24261081f;
  private static final float P3 = .05517144f;

  private Coded() {}

  /** Byte {@code at} of what begins at int {@code place}. */
  static int u8(IntArray a, int place, int at) {
    return (a.get(place + (at >> 2)) >> ((at & 3) << 3)) & 255;
  }

  /** fp16 number {@code index} of what begins at int {@code place}; finite. */
  static float half(IntArray a, int place, int index) {
    return halfOf((a.get(place + (index >> 1)) >> ((index & 1) << 4)) & 65535);
  }

  /** The number that 16 bits of fp16 mean; finite. */
  static float halfOf(int bits) {
    int exponent = (bits >> 10) & 31;
    int mantissa = bits & 1023;
    if (exponent == 0) {
      exponent = 1;
    } else {
      mantissa = mantissa + 1024;
    }
    float magnitude = mantissa * (float) (1 << exponent) * HALF_UNIT;
    return (bits & 32768) != 0 ? -magnitude : magnitude;
  }

  /**
   * Element {@code index} of rows that begin at int {@code place}.
   *
   * @param bytes of an element: 2 (bf16) or 4 (fp32)
   */
  static float exact(IntArray a, int place, int index, int bytes, FloatArray floats) {
    int bits;
    if (bytes == 2) {
      bits = ((a.get(place + (index >> 1)) >> ((index & 1) << 4)) & 65535) << 16;
    } else {
      bits = a.get(place + index);
    }
    int exponent = (bits >> 23) & 255;
    int mantissa = exponent == 0 ? 0 : (bits & 8388607) + 8388608;
    float magnitude = mantissa * floats.get(POWERS + exponent);
    return bits < 0 ? -magnitude : magnitude;
  }

  /** The 4-bit code of dimension {@code i} of a row of values that begins at byte {@code at}. */
  static int valueCode(IntArray a, int place, int at, int i, int headDim) {
    int nibble = valueNibble(at, i, headDim);
    return (a.get(place + (nibble >> 3)) >> ((nibble & 7) << 2)) & 15;
  }

  /** Where it is, in half bytes. */
  static int valueNibble(int at, int i, int headDim) {
    int chunk = i >> 5;
    int within = i & 31;
    int half = headDim - (chunk << 5) >= 32 ? 16 : 8;
    int high = within < half ? 0 : 1;
    return ((at + (chunk << 4) + within - high * half) << 1) + high;
  }

  /** e^x rounded to bf16, as {@code Kernels.sketchWeights} says. */
  static float weight(float x, FloatArray floats) {
    float z = TornadoMath.max(-EXPONENT_MAX, TornadoMath.min(EXPONENT_MAX, x * LOG2_E));
    // Casts cut towards zero, so what is rounded is made positive first.
    int whole = (int) (z + 128.5f) - 128;
    float rest = z - whole;
    float power = ((P3 * rest + P2) * rest + P1) * rest + P0;
    int up = power < 1f ? 256 : 128;
    int mantissa = (int) (power * up + .5f);
    return mantissa * floats.get(POWERS + 150 - (up == 256 ? 8 : 7) + whole);
  }

  /** The bucket that {@code MassHistogram.bucketOf} says, for 0 <= mass <= 1. */
  static int bucketOf(float mass, FloatArray floats) {
    // The largest e with 2^e <= mass, by halves: 2^-40 is the lowest octave.
    int octave = 0;
    for (int step = 32; step > 0; step = step >> 1) {
      int higher = octave + step;
      if (higher <= 40 && floats.get(POWERS + 110 + higher) <= mass) {
        octave = higher;
      }
    }
    float lowest = floats.get(POWERS + 110 + octave);
    if (mass < lowest) {
      return 0;
    }
    return (octave << 4) + (int) ((mass / lowest - 1f) * 16f);
  }

  /** The middle of a bucket of masses. */
  static float middleOf(int bucket, FloatArray floats) {
    return floats.get(POWERS + 110 + (bucket >> 4)) * (1f + ((bucket & 15) + .5f) / 16f);
  }
}
