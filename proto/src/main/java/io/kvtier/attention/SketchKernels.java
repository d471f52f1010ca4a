package io.kvtier.attention;

import static io.kvtier.page.PageLayout.TOKENS;
import static java.nio.ByteOrder.LITTLE_ENDIAN;
import static jdk.incubator.vector.VectorOperators.F2I;
import static jdk.incubator.vector.VectorOperators.I2B;
import static jdk.incubator.vector.VectorOperators.LSHL;
import static jdk.incubator.vector.VectorOperators.LSHR;

import jdk.incubator.vector.ByteVector;
import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.IntVector;
import jdk.incubator.vector.ShortVector;
import jdk.incubator.vector.VectorShape;
import jdk.incubator.vector.VectorSpecies;

/**
 * Scores from bit planes by look-up: a byte holds eight dimensions' bits of one token, and each
 * half of it indexes a table of 16 entries held in a register ("fast scan": André, Kermarrec, Le
 * Scouarnec, Cache locality is not enough, VLDB 2015). Entries are at most 63, so four look-ups add
 * up in bytes before they are widened to shorts: two and a half operations for four dimensions of
 * 64 tokens.
 */
final class SketchKernels {
  private static final VectorSpecies<Byte> B = ByteVector.SPECIES_PREFERRED;
  private static final VectorSpecies<Short> SHORTS = ShortVector.SPECIES_PREFERRED;
  private static final VectorSpecies<Float> F = KernelLanes.F;
  private static final int LANES = KernelLanes.LANES;

  /** As many bytes as a vector has ints. */
  private static final VectorSpecies<Byte> FEW =
      VectorSpecies.of(byte.class, VectorShape.forBitSize(Math.max(64, 8 * LANES)));

  private static final int TABLE = GroupQuery.TABLE_BYTES;

  /** {@code [4][16]}: the sign that bit i of a table's index gives its dimension. */
  private static final float[] SIGNS = new float[4 * GroupQuery.ENTRIES];

  static {
    for (int i = 0; i < 4; i++) {
      for (int entry = 0; entry < GroupQuery.ENTRIES; entry++) {
        SIGNS[i * GroupQuery.ENTRIES + entry] = (entry >> i & 1) == 0 ? -1 : 1;
      }
    }
  }

  private static final float LOG2_E = 1.442695f;

  private static final float BIAS = KernelLanes.BIAS;

  private SketchKernels() {}

  static void fillTables(GroupQuery query, int g) {
    float toStep = query.step[g] == 0 ? 0 : 1 / query.step[g];
    fillPlane(query, g, GroupQuery.SIGN_WEIGHT * toStep, 0);
    fillPlane(query, g, GroupQuery.COARSE_WEIGHT * toStep, query.headDim() / 4);
  }

  private static void fillPlane(GroupQuery query, int g, float weight, int firstTable) {
    int index = firstTable;
    for (int i = g * query.headDim(); i < (g + 1) * query.headDim(); i += 4) {
      float q0 = query.rotated[i] * weight;
      float q1 = query.rotated[i + 1] * weight;
      float q2 = query.rotated[i + 2] * weight;
      float q3 = query.rotated[i + 3] * weight;
      float lowest = -(Math.abs(q0) + Math.abs(q1) + Math.abs(q2) + Math.abs(q3));
      long table = query.table(g, index++);
      for (int entry = 0; entry < GroupQuery.ENTRIES; entry += LANES) {
        FloatVector sum =
            FloatVector.fromArray(F, SIGNS, entry)
                .mul(q0)
                .add(FloatVector.fromArray(F, SIGNS, 16 + entry).mul(q1))
                .add(FloatVector.fromArray(F, SIGNS, 32 + entry).mul(q2))
                .add(FloatVector.fromArray(F, SIGNS, 48 + entry).mul(q3));
        IntVector steps = (IntVector) sum.sub(lowest).add(.5f).convert(F2I, 0);
        ByteVector bytes = (ByteVector) steps.min(GroupQuery.ENTRY_MAX).convertShape(I2B, FEW, 0);
        for (int copy = 0; copy < TABLE; copy += GroupQuery.ENTRIES) {
          bytes.intoMemorySegment(OffHeap.ALL, table + copy + entry, LITTLE_ENDIAN);
        }
      }
    }
  }

  /**
   * Adds up the table entries of a page for query {@code g}.
   *
   * @param planes address of the first plane's rows of 64 bytes
   * @param rows even
   * @param sums receives 64 sums from {@code sums} on
   */
  static void sumOne(GroupQuery query, int g, long planes, int rows, long sums) {
    long tables = query.table(g, 0);
    ShortVector nibble = ShortVector.broadcast(SHORTS, (short) 4);
    ShortVector upper = ShortVector.broadcast(SHORTS, (short) 8);
    for (int column = 0; column < TOKENS; column += B.length()) {
      ShortVector even = ShortVector.zero(SHORTS);
      ShortVector odd = even;
      for (int i = 0; i < rows / 2; i++) {
        long row = OffHeap.address(planes + column + i * 2L * TOKENS);
        long table = OffHeap.address(tables + i * 4L * TABLE);
        ByteVector x0 = KernelLanes.bytes(row);
        ByteVector y0 = KernelLanes.bytes(row + TOKENS);
        ByteVector x1 = x0.reinterpretAsShorts().lanewise(LSHR, nibble).reinterpretAsBytes();
        ByteVector y1 = y0.reinterpretAsShorts().lanewise(LSHR, nibble).reinterpretAsBytes();
        ShortVector four =
            x0.selectFrom(KernelLanes.bytes(table))
                .add(x1.selectFrom(KernelLanes.bytes(table + TABLE)))
                .add(y0.selectFrom(KernelLanes.bytes(table + 2 * TABLE)))
                .add(y1.selectFrom(KernelLanes.bytes(table + 3 * TABLE)))
                .reinterpretAsShorts();
        even = even.add(four);
        odd = odd.add(four.lanewise(LSHR, upper));
      }
      long at = OffHeap.address(sums + 2L * column);
      even.intoMemorySegment(OffHeap.ALL, at, LITTLE_ENDIAN);
      odd.intoMemorySegment(OffHeap.ALL, at + B.length(), LITTLE_ENDIAN);
    }
  }

  /**
   * As {@link #sumOne} for queries {@code g} and {@code g + 1} of a block of four. One loop,
   * written out: the compiler keeps vectors in registers only in such, and four queries are too
   * much for it.
   */
  static void sumTwo(GroupQuery query, int g, long planes, int rows, long sums) {
    long tables = query.table(g, 0);
    ShortVector nibble = ShortVector.broadcast(SHORTS, (short) 4);
    ShortVector upper = ShortVector.broadcast(SHORTS, (short) 8);
    for (int column = 0; column < TOKENS; column += B.length()) {
      ShortVector even0 = ShortVector.zero(SHORTS);
      ShortVector even1 = even0;
      ShortVector odd0 = even0;
      ShortVector odd1 = even0;
      for (int i = 0; i < rows / 2; i++) {
        long row = OffHeap.address(planes + column + i * 2L * TOKENS);
        long table = OffHeap.address(tables + i * 16L * TABLE);
        ByteVector x0 = KernelLanes.bytes(row);
        ByteVector y0 = KernelLanes.bytes(row + TOKENS);
        ByteVector x1 = x0.reinterpretAsShorts().lanewise(LSHR, nibble).reinterpretAsBytes();
        ByteVector y1 = y0.reinterpretAsShorts().lanewise(LSHR, nibble).reinterpretAsBytes();
        ShortVector four =
            x0.selectFrom(KernelLanes.bytes(table))
                .add(x1.selectFrom(KernelLanes.bytes(table + TABLE)))
                .add(y0.selectFrom(KernelLanes.bytes(table + 2 * TABLE)))
                .add(y1.selectFrom(KernelLanes.bytes(table + 3 * TABLE)))
                .reinterpretAsShorts();
        even0 = even0.add(four);
        odd0 = odd0.add(four.lanewise(LSHR, upper));
        four =
            x0.selectFrom(KernelLanes.bytes(table + 4 * TABLE))
                .add(x1.selectFrom(KernelLanes.bytes(table + 5 * TABLE)))
                .add(y0.selectFrom(KernelLanes.bytes(table + 6 * TABLE)))
                .add(y1.selectFrom(KernelLanes.bytes(table + 7 * TABLE)))
                .reinterpretAsShorts();
        even1 = even1.add(four);
        odd1 = odd1.add(four.lanewise(LSHR, upper));
      }
      long at = OffHeap.address(sums + 2L * column);
      even0.intoMemorySegment(OffHeap.ALL, at, LITTLE_ENDIAN);
      odd0.intoMemorySegment(OffHeap.ALL, at + B.length(), LITTLE_ENDIAN);
      even1.intoMemorySegment(OffHeap.ALL, at + 2 * TOKENS, LITTLE_ENDIAN);
      odd1.intoMemorySegment(OffHeap.ALL, at + 2 * TOKENS + B.length(), LITTLE_ENDIAN);
    }
  }

  /**
   * Brings sums into the order of tokens. They come as two vectors for each vector of bytes: whole
   * shorts added up, of which the upper byte is the odd token's, then the odd tokens' alone.
   *
   * @param count sums, whole pages
   */
  static void order(long sums, int count, short[] ordered) {
    for (int pair = 0; pair < count / 2; pair += LANES) {
      int place = pair / SHORTS.length() * B.length() + pair % SHORTS.length();
      long at = OffHeap.address(sums + 2L * place);
      ShortVector both = KernelLanes.shorts(at);
      ShortVector odd = KernelLanes.shorts(at + B.length());
      ShortVector even = both.sub(odd.lanewise(LSHL, 8));
      IntVector wideEven = (IntVector) even.castShape(KernelLanes.I, 0);
      IntVector wideOdd = (IntVector) odd.castShape(KernelLanes.I, 0);
      wideEven.or(wideOdd.lanewise(LSHL, 16)).reinterpretAsShorts().intoArray(ordered, 2 * pair);
    }
  }

  /** {@code (sum x step + bias) x scale + mean} of a page's tokens for query {@code g}. */
  static void scores(
      short[] sums, int g, float step, float bias, float[] scales, float mean, float[] scores) {
    FloatVector steps = FloatVector.broadcast(F, step);
    FloatVector biases = FloatVector.broadcast(F, bias);
    FloatVector means = FloatVector.broadcast(F, mean);
    int at = g * TOKENS;
    for (int t = 0; t < TOKENS; t += LANES) {
      KernelLanes.floats(sums, at + t)
          .fma(steps, biases)
          .fma(FloatVector.fromArray(F, scales, t), means)
          .intoArray(scores, at + t);
    }
  }

  /**
   * Scales as fp32, of as many even tokens as there are lanes, then of the odd ones between them,
   * and so on.
   *
   * @param scales address of {@code [64]} fp16
   * @param factors address of what receives {@code [64]} fp32
   */
  static void factors(long scales, long factors) {
    for (int t = 0; t < TOKENS; t += 2 * LANES) {
      IntVector pair = KernelLanes.words(scales + 2L * t);
      long to = OffHeap.address(factors + 4L * t);
      KernelLanes.upperHalves(pair.lanewise(LSHL, 16))
          .intoMemorySegment(OffHeap.ALL, to, LITTLE_ENDIAN);
      KernelLanes.upperHalves(pair).intoMemorySegment(OffHeap.ALL, to + 4L * LANES, LITTLE_ENDIAN);
    }
  }

  /**
   * As {@link #scores} for a whole group, and on to weights 2^(score log2 e), with the polynomial
   * of degree 3 (relative error 7.5e-5, far below the sketch's own), rounded to bf16: half the
   * memory to write and to read again. Sums are taken as they come: even tokens and odd ones are
   * weighed apart, and a bf16 of each makes an int of what is written.
   *
   * @param sums address of {@code [group][64]}, not ordered
   * @param factors the tokens' scales, as {@link #factors} leaves them
   * @param terms {@code [group][3]} from {@code termsAt} on: step, bias and the mean's score less
   *     the reference
   * @param weights address of what receives {@code [group][64]}
   * @param lanes address of what receives {@code [group][lanes]}: sums of the weights, still to be
   *     added up
   */
  static void weights(
      long sums, int group, long factors, float[] terms, int termsAt, long weights, long lanes) {
    for (int g = 0; g < group; g++) {
      FloatVector steps = FloatVector.broadcast(F, terms[termsAt + 3 * g] * LOG2_E);
      FloatVector biases = FloatVector.broadcast(F, terms[termsAt + 3 * g + 1] * LOG2_E);
      FloatVector means = FloatVector.broadcast(F, terms[termsAt + 3 * g + 2] * LOG2_E + BIAS);
      FloatVector total = FloatVector.zero(F);
      for (int t = 0; t < TOKENS; t += 2 * LANES) {
        int place = g * TOKENS + t / B.length() * B.length() + t % B.length() / 2;
        long at = OffHeap.address(sums + 2L * place);
        ShortVector odds = KernelLanes.shorts(at + B.length());
        ShortVector evens = KernelLanes.shorts(at).sub(odds.lanewise(LSHL, 8));
        long factor = OffHeap.address(factors + 4L * t);
        FloatVector even =
            ((FloatVector) evens.castShape(F, 0))
                .fma(steps, biases)
                .fma(KernelLanes.fp32(factor), means);
        FloatVector odd =
            ((FloatVector) odds.castShape(F, 0))
                .fma(steps, biases)
                .fma(KernelLanes.fp32(factor + 4L * LANES), means);
        IntVector evenBits = KernelLanes.estimates(even);
        IntVector oddBits = KernelLanes.estimates(odd);
        total = total.add(evenBits.reinterpretAsFloats()).add(oddBits.reinterpretAsFloats());
        evenBits
            .lanewise(LSHR, 16)
            .or(oddBits)
            .reinterpretAsShorts()
            .intoMemorySegment(
                OffHeap.ALL, OffHeap.address(weights + 2L * (g * TOKENS + t)), LITTLE_ENDIAN);
      }
      total.intoMemorySegment(OffHeap.ALL, OffHeap.address(lanes + 4L * g * LANES), LITTLE_ENDIAN);
    }
  }
}
