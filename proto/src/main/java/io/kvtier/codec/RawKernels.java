package io.kvtier.codec;

import static io.kvtier.codec.Lanes.BYTES_HALF;
import static io.kvtier.codec.Lanes.FLOATS;
import static io.kvtier.codec.Lanes.INTS;
import static io.kvtier.codec.Lanes.LANES;
import static io.kvtier.codec.Lanes.SHORTS_HALF;

import jdk.incubator.vector.ByteVector;
import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.IntVector;
import jdk.incubator.vector.ShortVector;
import jdk.incubator.vector.VectorOperators;

/** Rows to bf16 and back, and the check of rows that comes before any codec. */
final class RawKernels {
  private RawKernels() {}

  static void encodeRow(float[] row, int at, int headDim, byte[] head, int to) {
    for (int i = 0; i < headDim; i += LANES) {
      IntVector bits = FloatVector.fromArray(FLOATS, row, at + i).reinterpretAsInts();
      IntVector rounded =
          bits.lanewise(VectorOperators.LSHR, 16)
              .and(1)
              .add(0x7FFF)
              .add(bits)
              .lanewise(VectorOperators.LSHR, 16);
      ((ShortVector) rounded.convertShape(VectorOperators.I2S, SHORTS_HALF, 0))
          .reinterpretAsBytes()
          .intoArray(head, to + i * Short.BYTES);
    }
  }

  /** Whether all of the first elements are numbers, and small enough for any codec. */
  static boolean areCodable(float[] x, int length) {
    // As bits without the sign, larger magnitudes, infinities and NaN follow in that order.
    IntVector greatest = IntVector.zero(INTS);
    for (int i = 0; i < length; i += LANES) {
      IntVector bits = FloatVector.fromArray(FLOATS, x, i).reinterpretAsInts();
      greatest = greatest.max(bits.and(0x7FFF_FFFF));
    }
    return greatest.reduceLanes(VectorOperators.MAX)
        <= Float.floatToRawIntBits(RawRows.MAGNITUDE_MAX);
  }

  static void decodeRow(byte[] head, int from, int headDim, float[] row, int at) {
    for (int i = 0; i < headDim; i += LANES) {
      ShortVector halves =
          ByteVector.fromArray(BYTES_HALF, head, from + i * Short.BYTES).reinterpretAsShorts();
      ((IntVector) halves.convertShape(VectorOperators.ZERO_EXTEND_S2I, INTS, 0))
          .lanewise(VectorOperators.LSHL, 16)
          .reinterpretAsFloats()
          .intoArray(row, at + i);
    }
  }
}
