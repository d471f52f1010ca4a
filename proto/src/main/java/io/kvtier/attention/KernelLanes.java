package io.kvtier.attention;

import static java.nio.ByteOrder.LITTLE_ENDIAN;
import static jdk.incubator.vector.VectorOperators.ASHR;
import static jdk.incubator.vector.VectorOperators.BITWISE_BLEND;
import static jdk.incubator.vector.VectorOperators.GE;
import static jdk.incubator.vector.VectorOperators.GT;
import static jdk.incubator.vector.VectorOperators.I2F;
import static jdk.incubator.vector.VectorOperators.LSHL;
import static jdk.incubator.vector.VectorOperators.ZERO_EXTEND_B2I;

import io.kvtier.codec.RotLevels;
import jdk.incubator.vector.ByteVector;
import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.IntVector;
import jdk.incubator.vector.LongVector;
import jdk.incubator.vector.ShortVector;
import jdk.incubator.vector.VectorMask;
import jdk.incubator.vector.VectorShape;
import jdk.incubator.vector.VectorSpecies;

/**
 * Shapes and small steps that the kernels are made of, all inlined into them. 8 or 16 lanes of 32
 * bits.
 *
 * <p>The loops themselves are the static methods of the classes named {@code ...Kernels}, each
 * compiled by itself (kvtier.jvmargs forbids to inline them): several in one compilation exceed the
 * compiler's bounds, and vectors are then made on the heap, a hundred times slower.
 */
final class KernelLanes {
  static final VectorSpecies<Float> F = FloatVector.SPECIES_PREFERRED;
  static final VectorSpecies<Integer> I = IntVector.SPECIES_PREFERRED;
  static final int LANES = F.length();
  private static final VectorSpecies<Byte> BYTES = ByteVector.SPECIES_PREFERRED;

  /** As many shorts as a vector has floats. */
  static final VectorSpecies<Short> S =
      VectorSpecies.of(short.class, VectorShape.forBitSize(F.vectorBitSize() / 2));

  /** As many bytes as a vector has ints. */
  private static final VectorSpecies<Byte> FEW =
      VectorSpecies.of(byte.class, VectorShape.forBitSize(8 * LANES));

  /** Weights below this exponent are 0. */
  private static final float EXPONENT_MIN = -87;

  /** Added to exponents of 2, so that they are above 0. */
  static final float BIAS = 126;

  /** Least and largest exponent, of e^-87 and e^87. */
  private static final int LEAST_BITS = Float.floatToRawIntBits(BIAS - 125.5f);

  private static final int MOST_BITS = Float.floatToRawIntBits(BIAS + 125.5f);

  /** Adding 1.5 x 2^23 leaves the nearest integer in the low bits. */
  private static final float ROUND = 12582912f;

  /** Minimax polynomial of 2^f on [-1/2, 1/2]. */
  private static final float P0 = 0.9999281f;

  private static final float P1 = 0.693261f;
  private static final float P2 = 0.24261081f;
  private static final float P3 = 0.05517144f;

  private static final int[] LEVEL_BITS = new int[16];

  static {
    for (int code = 0; code < 16; code++) {
      LEVEL_BITS[code] = Float.floatToRawIntBits(RotLevels.of(4).level(code));
    }
  }

  /** {@code [4][lanes]}: each lane's number with bit 0, 1, 2, 3 turned over. */
  private static final int[] PARTNERS = new int[4 * LANES];

  /** {@code [4][lanes]}: all ones in lanes whose number has bit 0, 1, 2, 3. */
  private static final int[] WITH = new int[4 * LANES];

  static {
    for (int bit = 0; 1 << bit < LANES; bit++) {
      for (int lane = 0; lane < LANES; lane++) {
        PARTNERS[bit * LANES + lane] = lane ^ 1 << bit;
        WITH[bit * LANES + lane] = -(lane >> bit & 1);
      }
    }
  }

  private KernelLanes() {}

  /** Levels of codes 0..15; higher bits of the lanes must be 0. */
  static FloatVector levels(IntVector codes) {
    if (LANES == 16) {
      return codes.selectFrom(IntVector.fromArray(I, LEVEL_BITS, 0)).reinterpretAsFloats();
    }
    IntVector lower = codes.and(7);
    return lower
        .selectFrom(IntVector.fromArray(I, LEVEL_BITS, 0))
        .blend(lower.selectFrom(IntVector.fromArray(I, LEVEL_BITS, 8)), codes.compare(GE, 8))
        .reinterpretAsFloats();
  }

  static IntVector pair(byte[] codes, int at) {
    return (IntVector) ByteVector.fromArray(FEW, codes, at).convertShape(ZERO_EXTEND_B2I, I, 0);
  }

  static IntVector pair(long address) {
    return (IntVector)
        ByteVector.fromMemorySegment(FEW, OffHeap.ALL, address, LITTLE_ENDIAN)
            .convertShape(ZERO_EXTEND_B2I, I, 0);
  }

  /** A vector of words; of a short row what follows it is read too. */
  static IntVector words(long address) {
    return IntVector.fromMemorySegment(I, OffHeap.ALL, address, LITTLE_ENDIAN);
  }

  static ByteVector bytes(long address) {
    return ByteVector.fromMemorySegment(BYTES, OffHeap.ALL, address, LITTLE_ENDIAN);
  }

  static LongVector row(long address) {
    return bytes(address).reinterpretAsLongs();
  }

  /**
   * Reads fp16 numbers, which must be finite: sign, exponent and fraction are shifted to their
   * places, and a multiplication by 2^112 mends the exponent, subnormals included.
   */
  static FloatVector halves(long address) {
    return ((IntVector)
            ShortVector.fromMemorySegment(S, OffHeap.ALL, address, LITTLE_ENDIAN).castShape(I, 0))
        .lanewise(LSHL, 13)
        .and(0x8FFF_FFFF)
        .reinterpretAsFloats()
        .mul(0x1p112f);
  }

  static FloatVector floats(IntVector numbers) {
    return (FloatVector) numbers.convertShape(I2F, F, 0);
  }

  /** The fp16 numbers in the upper halves of words, as {@link #halves}. */
  static FloatVector upperHalves(IntVector words) {
    return words.lanewise(ASHR, 3).and(0x8FFF_E000).reinterpretAsFloats().mul(0x1p112f);
  }

  static ShortVector shorts(long address) {
    return ShortVector.fromMemorySegment(S, OffHeap.ALL, address, LITTLE_ENDIAN);
  }

  static FloatVector floats(short[] numbers, int at) {
    return (FloatVector) ShortVector.fromArray(S, numbers, at).castShape(F, 0);
  }

  static FloatVector bf16(long address) {
    return ((IntVector)
            ShortVector.fromMemorySegment(S, OffHeap.ALL, address, LITTLE_ENDIAN).castShape(I, 0))
        .lanewise(LSHL, 16)
        .reinterpretAsFloats();
  }

  static FloatVector fp32(long address) {
    return FloatVector.fromMemorySegment(F, OffHeap.ALL, address, LITTLE_ENDIAN);
  }

  /**
   * The sum over all lanes: halves are added until one lane is left. {@code reduceLanes(ADD)} has
   * no defined order, and compiled code gives other last digits than interpreted code.
   */
  static float sum(FloatVector v) {
    FloatVector sum = v;
    if (LANES == 16) {
      sum = sum.add(exchange(sum, 3));
    }
    sum = sum.add(exchange(sum, 2));
    sum = sum.add(exchange(sum, 1));
    return sum.add(exchange(sum, 0)).lane(0);
  }

  /** The largest lane; none may be NaN. {@code reduceLanes(MAX)} takes several times as long. */
  static float max(FloatVector v) {
    FloatVector max = v;
    if (LANES == 16) {
      max = larger(max, exchange(max, 3));
    }
    max = larger(max, exchange(max, 2));
    max = larger(max, exchange(max, 1));
    return larger(max, exchange(max, 0)).lane(0);
  }

  private static FloatVector larger(FloatVector a, FloatVector b) {
    return a.blend(b, b.compare(GT, a));
  }

  /**
   * e^x = 2^n p(f), n the nearest integer to x log2 e, p the minimax polynomial of degree 6 for 2^f
   * on [-1/2, 1/2] (relative error 1.6e-8, before rounding); 0 below e^-87.
   */
  static FloatVector weights(FloatVector exponents) {
    VectorMask<Float> counts = exponents.compare(GE, EXPONENT_MIN);
    FloatVector x = FloatVector.broadcast(F, EXPONENT_MIN).blend(exponents, counts);
    // Adding 1.5 x 2^23 leaves the nearest integer in the low bits.
    FloatVector shifted = x.mul(1.442695f).add(12582912f);
    FloatVector minusN = FloatVector.broadcast(F, 12582912f).sub(shifted);
    // log2 e in two parts, so that the fraction keeps its digits where n is large.
    FloatVector f =
        x.fma(
            FloatVector.broadcast(F, 1.9259630e-8f),
            x.fma(FloatVector.broadcast(F, 1.442695f), minusN));
    FloatVector p =
        FloatVector.broadcast(F, 1.5345804e-4f)
            .fma(f, FloatVector.broadcast(F, 0.0013399931f))
            .fma(f, FloatVector.broadcast(F, 0.009618489f))
            .fma(f, FloatVector.broadcast(F, 0.055503286f))
            .fma(f, FloatVector.broadcast(F, 0.24022646f))
            .fma(f, FloatVector.broadcast(F, 0.6931472f))
            .fma(f, FloatVector.broadcast(F, 1f));
    FloatVector weight =
        p.reinterpretAsInts()
            .add(shifted.reinterpretAsInts().lanewise(LSHL, 23))
            .reinterpretAsFloats();
    return FloatVector.zero(F).blend(weight, counts);
  }

  /**
   * 2^(x - {@link #BIAS}), to 7.5e-5 and then to the nearest bf16, in the upper halves of words;
   * from e^-87 to e^87.
   */
  static IntVector estimates(FloatVector x) {
    // As integers, since min and max of floats cost several times as much, for the sake of NaN:
    // what is below 0 is so as an integer too, and the rest is in the same order.
    FloatVector within = x.reinterpretAsInts().max(LEAST_BITS).min(MOST_BITS).reinterpretAsFloats();
    FloatVector shifted = within.add(ROUND);
    FloatVector f = within.sub(shifted.sub(ROUND));
    FloatVector p =
        FloatVector.broadcast(F, P3)
            .fma(f, FloatVector.broadcast(F, P2))
            .fma(f, FloatVector.broadcast(F, P1))
            .fma(f, FloatVector.broadcast(F, P0));
    return p.reinterpretAsInts()
        .add(shifted.reinterpretAsInts().lanewise(LSHL, 23))
        .add(0x8000 - ((int) BIAS << 23))
        .and(0xFFFF_0000);
  }

  /** Lanes of {@code b} where {@code mask} has ones, of {@code a} where it has zeros. */
  static FloatVector blend(FloatVector a, FloatVector b, IntVector mask) {
    return a.reinterpretAsInts()
        .lanewise(BITWISE_BLEND, b.reinterpretAsInts(), mask)
        .reinterpretAsFloats();
  }

  /** All ones in lanes whose number has a bit set. */
  static IntVector lanesWith(int bit) {
    return IntVector.fromArray(I, WITH, bit * LANES);
  }

  /** The lanes with each swapped for the one whose number differs in one bit. */
  static FloatVector exchange(FloatVector v, int bit) {
    return IntVector.fromArray(I, PARTNERS, bit * LANES)
        .selectFrom(v.reinterpretAsInts())
        .reinterpretAsFloats();
  }
}
