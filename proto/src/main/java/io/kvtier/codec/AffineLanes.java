package io.kvtier.codec;

import static io.kvtier.codec.Lanes.FLOATS;

import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.IntVector;
import jdk.incubator.vector.VectorOperators;

/** Small steps that {@link AffineKernels} are made of, inlined into them. */
final class AffineLanes {
  /** 2^23: added to 0..15 it rounds to an integer, ties to even, left in the lowest bits. */
  private static final float ROUNDING = 0x1p23f;

  private AffineLanes() {}

  /** Cheaper than min(), which must also order zeros and pass NaN on. */
  static FloatVector less(FloatVector x, FloatVector min) {
    return min.blend(x, x.compare(VectorOperators.LT, min));
  }

  static FloatVector greater(FloatVector x, FloatVector max) {
    return max.blend(x, x.compare(VectorOperators.GT, max));
  }

  static IntVector codeOf(FloatVector x, FloatVector zero, FloatVector step, int codeMax) {
    FloatVector code = x.sub(zero).div(step);
    // Not a number, of 0 / 0, is not above 0 either.
    code = FloatVector.zero(FLOATS).blend(code, code.compare(VectorOperators.GT, 0f));
    code = code.blend(codeMax, code.compare(VectorOperators.GT, (float) codeMax));
    code = code.blend(0f, step.compare(VectorOperators.EQ, 0f));
    return code.add(ROUNDING).reinterpretAsInts().and(15);
  }

  static FloatVector levels(byte[] codes, int at) {
    return (FloatVector) Lanes.loadCodes(codes, at).convert(VectorOperators.I2F, 0);
  }
}
