package io.kvtier.codec;

import jdk.incubator.vector.ByteVector;
import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.IntVector;
import jdk.incubator.vector.ShortVector;
import jdk.incubator.vector.VectorOperators;
import jdk.incubator.vector.VectorShape;
import jdk.incubator.vector.VectorSpecies;

/**
 * Shapes and small steps that the codecs' kernels are made of, all inlined into them. 8 or 16 lanes
 * of 32 bits.
 *
 * <p>Kernels are the static methods of the classes named {@code ...Kernels}: loops over arrays,
 * each compiled by itself (kvtier.jvmargs forbids to inline them). Several in one compilation
 * exceed the compiler's bound of nodes, and vectors are then made on the heap, a hundred times
 * slower.
 */
final class Lanes {
  static final VectorSpecies<Float> FLOATS = FloatVector.SPECIES_PREFERRED;
  static final VectorSpecies<Integer> INTS = IntVector.SPECIES_PREFERRED;
  static final VectorSpecies<Short> SHORTS = ShortVector.SPECIES_PREFERRED;
  static final VectorSpecies<Byte> BYTES = ByteVector.SPECIES_PREFERRED;

  /** As many shorts as a vector has ints. */
  static final VectorSpecies<Short> SHORTS_HALF =
      VectorSpecies.of(short.class, VectorShape.forBitSize(INTS.vectorBitSize() / 2));

  /** As many bytes as a vector has shorts. */
  static final VectorSpecies<Byte> BYTES_HALF =
      VectorSpecies.of(byte.class, VectorShape.forBitSize(INTS.vectorBitSize() / 2));

  /** As many bytes as a vector has ints. */
  static final VectorSpecies<Byte> BYTES_QUARTER =
      VectorSpecies.of(byte.class, VectorShape.forBitSize(INTS.vectorBitSize() / 4));

  static final int LANES = FLOATS.length();

  /** Entries of a table that {@link #lookUp} reads. */
  static final int TABLE = 16;

  /** By stride 1, 2, 4, 8: the lane that each lane is paired with. */
  private static final int[] PARTNERS = new int[4 * LANES];

  /** By stride: 1 where a lane is the first of its pair, -1 where it is the second. */
  private static final float[] SIDES = new float[4 * LANES];

  static {
    for (int i = 0; i < 4 * LANES; i++) {
      int lane = i % LANES;
      int stride = 1 << (i / LANES);
      PARTNERS[i] = (lane ^ stride) % LANES;
      SIDES[i] = (lane & stride) == 0 ? 1 : -1;
    }
  }

  private Lanes() {}

  /** Of stride 2^strideLog, at most 8: the lane that each lane is paired with. */
  static IntVector partners(int strideLog) {
    return IntVector.fromArray(INTS, PARTNERS, strideLog * LANES);
  }

  /** Of stride 2^strideLog: 1 in the first lane of a pair, -1 in the second. */
  static FloatVector sides(int strideLog) {
    return FloatVector.fromArray(FLOATS, SIDES, strideLog * LANES);
  }

  static FloatVector exchange(FloatVector x, IntVector partners) {
    return partners.selectFrom(x.reinterpretAsInts()).reinterpretAsFloats();
  }

  /**
   * Butterflies within a vector: a + b in the first lane of a pair, a - b in the second. The
   * product with ±1 is exact, so that the fused multiply-add rounds as the plain sum does.
   */
  static FloatVector butterflies(FloatVector x, IntVector partners, FloatVector sides) {
    return x.fma(sides, exchange(x, partners));
  }

  /** The first part of a table of 16 ints: all of it, or half. */
  static IntVector low(int[] tables, int at) {
    return IntVector.fromArray(INTS, tables, at);
  }

  /** The last part of a table of 16 ints: all of it, or half. */
  static IntVector high(int[] tables, int at) {
    return IntVector.fromArray(INTS, tables, at + TABLE - LANES);
  }

  /** Looks indices 0..15 up in a table. */
  static IntVector lookUp(IntVector index, IntVector low, IntVector high) {
    if (LANES == TABLE) {
      return index.selectFrom(low);
    }
    IntVector wrapped = index.and(LANES - 1);
    return wrapped
        .selectFrom(low)
        .blend(wrapped.selectFrom(high), index.compare(VectorOperators.GE, LANES));
  }

  /** Widens as many bytes as a vector of ints has lanes. */
  static IntVector loadCodes(byte[] codes, int at) {
    return (IntVector)
        ByteVector.fromArray(BYTES_QUARTER, codes, at)
            .convertShape(VectorOperators.ZERO_EXTEND_B2I, INTS, 0);
  }

  static void storeCodes(IntVector code, byte[] codes, int at) {
    ((ByteVector) code.convertShape(VectorOperators.I2B, BYTES_QUARTER, 0)).intoArray(codes, at);
  }
}
