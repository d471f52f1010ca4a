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

  /** Added to exponents of 2, so that they are above 0. */
  private static final float BIAS = 126;

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

  private SketchKernels() {}

  static void fillTables(GroupQuery query, int g) {
    float toStep = query.step[g] == 0 ? 0 : 1 / query.step[g];
    int planeTables = query.headDim() / 4;
    int at = g * query.tableStride();
    fillPlane(query, g, GroupQuery.SIGN_WEIGHT * toStep, at);
    fillPlane(query, g, GroupQuery.COARSE_WEIGHT * toStep, at + planeTables * TABLE);
  }

  private static void fillPlane(GroupQuery query, int g, float weight, int tablesAt) {
    int at = tablesAt;
    for (int i = g * query.headDim(); i < (g + 1) * query.headDim(); i += 4) {
      float q0 = query.rotated[i] * weight;
      float q1 = query.rotated[i + 1] * weight;
      float q2 = query.rotated[i + 2] * weight;
      float q3 = query.rotated[i + 3] * weight;
      float lowest = -(Math.abs(q0) + Math.abs(q1) + Math.abs(q2) + Math.abs(q3));
      for (int entry = 0; entry < GroupQuery.ENTRIES; entry += LANES) {
        FloatVector sum =
            FloatVector.fromArray(F, SIGNS, entry)
                .mul(q0)
                .add(FloatVector.fromArray(F, SIGNS, 16 + entry).mul(q1))
                .add(FloatVector.fromArray(F, SIGNS, 32 + entry).mul(q2))
                .add(FloatVector.fromArray(F, SIGNS, 48 + entry).mul(q3));
        IntVector steps = (IntVector) sum.sub(lowest).add(.5f).convert(F2I, 0);
        ByteVector bytes = (ByteVector) steps.min(GroupQuery.ENTRY_MAX).convertShape(I2B, FEW, 0);
        bytes.intoArray(query.tables, at + entry);
        bytes.intoArray(query.tables, at + 16 + entry);
        bytes.intoArray(query.tables, at + 32 + entry);
        bytes.intoArray(query.tables, at + 48 + entry);
      }
      at += TABLE;
    }
  }

  /**
   * Adds up the table entries of a page for query {@code g}.
   *
   * @param planes address of the first plane's rows of 64 bytes
   * @param rows even
   * @param sums receives 64 sums from {@code 64 g} on
   */
  static void sumOne(GroupQuery query, int g, long planes, int rows, short[] sums) {
    byte[] tables = query.tables;
    int from = g * query.tableStride();
    for (int column = 0; column < TOKENS; column += B.length()) {
      ShortVector even = ShortVector.zero(SHORTS);
      ShortVector odd = even;
      for (int i = 0; i < rows / 2; i++) {
        long row = planes + column + 2L * i * TOKENS;
        int table = from + i * 4 * TABLE;
        ByteVector x = ByteVector.fromMemorySegment(B, OffHeap.ALL, row, LITTLE_ENDIAN);
        ByteVector y = ByteVector.fromMemorySegment(B, OffHeap.ALL, row + TOKENS, LITTLE_ENDIAN);
        ByteVector x1 =
            x.reinterpretAsShorts().lanewise(LSHR, 4).reinterpretAsBytes().and((byte) 15);
        ByteVector y1 =
            y.reinterpretAsShorts().lanewise(LSHR, 4).reinterpretAsBytes().and((byte) 15);
        ShortVector four =
            x.and((byte) 15)
                .selectFrom(ByteVector.fromArray(B, tables, table))
                .add(x1.selectFrom(ByteVector.fromArray(B, tables, table + TABLE)))
                .add(
                    y.and((byte) 15).selectFrom(ByteVector.fromArray(B, tables, table + 2 * TABLE)))
                .add(y1.selectFrom(ByteVector.fromArray(B, tables, table + 3 * TABLE)))
                .reinterpretAsShorts();
        even = even.add(four);
        odd = odd.add(four.lanewise(LSHR, 8));
      }
      int at = g * TOKENS + column;
      even.intoArray(sums, at);
      odd.intoArray(sums, at + SHORTS.length());
    }
  }

  /**
   * As {@link #sumOne} for queries {@code g} to {@code g + 3}: each row is read once. One loop,
   * written out: the compiler keeps vectors in registers only in such. All indices are multiples of
   * the loop's own, so that their bounds are checked once, before it.
   */
  static void sumFour(GroupQuery query, int g, long planes, int rows, short[] sums) {
    byte[] tables = query.tables;
    int stride = query.tableStride();
    int from = g * stride;
    for (int column = 0; column < TOKENS; column += B.length()) {
      ShortVector even0 = ShortVector.zero(SHORTS);
      ShortVector even1 = even0;
      ShortVector even2 = even0;
      ShortVector even3 = even0;
      ShortVector odd0 = even0;
      ShortVector odd1 = even0;
      ShortVector odd2 = even0;
      ShortVector odd3 = even0;
      for (int i = 0; i < rows / 2; i++) {
        long row = planes + column + 2L * i * TOKENS;
        int table0 = from + i * 4 * TABLE;
        ByteVector x = ByteVector.fromMemorySegment(B, OffHeap.ALL, row, LITTLE_ENDIAN);
        ByteVector y = ByteVector.fromMemorySegment(B, OffHeap.ALL, row + TOKENS, LITTLE_ENDIAN);
        ByteVector x0 = x.and((byte) 15);
        ByteVector x1 =
            x.reinterpretAsShorts().lanewise(LSHR, 4).reinterpretAsBytes().and((byte) 15);
        ByteVector y0 = y.and((byte) 15);
        ByteVector y1 =
            y.reinterpretAsShorts().lanewise(LSHR, 4).reinterpretAsBytes().and((byte) 15);
        ShortVector four;
        four =
            x0.selectFrom(ByteVector.fromArray(B, tables, table0))
                .add(x1.selectFrom(ByteVector.fromArray(B, tables, table0 + TABLE)))
                .add(y0.selectFrom(ByteVector.fromArray(B, tables, table0 + 2 * TABLE)))
                .add(y1.selectFrom(ByteVector.fromArray(B, tables, table0 + 3 * TABLE)))
                .reinterpretAsShorts();
        even0 = even0.add(four);
        odd0 = odd0.add(four.lanewise(LSHR, 8));
        int table1 = table0 + stride;
        four =
            x0.selectFrom(ByteVector.fromArray(B, tables, table1))
                .add(x1.selectFrom(ByteVector.fromArray(B, tables, table1 + TABLE)))
                .add(y0.selectFrom(ByteVector.fromArray(B, tables, table1 + 2 * TABLE)))
                .add(y1.selectFrom(ByteVector.fromArray(B, tables, table1 + 3 * TABLE)))
                .reinterpretAsShorts();
        even1 = even1.add(four);
        odd1 = odd1.add(four.lanewise(LSHR, 8));
        int table2 = table1 + stride;
        four =
            x0.selectFrom(ByteVector.fromArray(B, tables, table2))
                .add(x1.selectFrom(ByteVector.fromArray(B, tables, table2 + TABLE)))
                .add(y0.selectFrom(ByteVector.fromArray(B, tables, table2 + 2 * TABLE)))
                .add(y1.selectFrom(ByteVector.fromArray(B, tables, table2 + 3 * TABLE)))
                .reinterpretAsShorts();
        even2 = even2.add(four);
        odd2 = odd2.add(four.lanewise(LSHR, 8));
        int table3 = table2 + stride;
        four =
            x0.selectFrom(ByteVector.fromArray(B, tables, table3))
                .add(x1.selectFrom(ByteVector.fromArray(B, tables, table3 + TABLE)))
                .add(y0.selectFrom(ByteVector.fromArray(B, tables, table3 + 2 * TABLE)))
                .add(y1.selectFrom(ByteVector.fromArray(B, tables, table3 + 3 * TABLE)))
                .reinterpretAsShorts();
        even3 = even3.add(four);
        odd3 = odd3.add(four.lanewise(LSHR, 8));
      }
      int at = g * TOKENS + column;
      even0.intoArray(sums, at);
      odd0.intoArray(sums, at + SHORTS.length());
      even1.intoArray(sums, at + TOKENS);
      odd1.intoArray(sums, at + TOKENS + SHORTS.length());
      even2.intoArray(sums, at + 2 * TOKENS);
      odd2.intoArray(sums, at + 2 * TOKENS + SHORTS.length());
      even3.intoArray(sums, at + 3 * TOKENS);
      odd3.intoArray(sums, at + 3 * TOKENS + SHORTS.length());
    }
  }

  /**
   * Brings sums into the order of tokens. They come as two vectors for each vector of bytes: whole
   * shorts added up, of which the upper byte is the odd token's, then the odd tokens' alone.
   *
   * @param count sums, whole pages
   */
  static void order(short[] sums, int count, short[] ordered) {
    for (int pair = 0; pair < count / 2; pair += LANES) {
      int at = pair / SHORTS.length() * B.length() + pair % SHORTS.length();
      ShortVector both = ShortVector.fromArray(KernelLanes.S, sums, at);
      ShortVector odd = ShortVector.fromArray(KernelLanes.S, sums, at + SHORTS.length());
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
   * As {@link #scores} for a whole group, and on to weights 2^(score log2 e), with the polynomial
   * of degree 3 (relative error 7.5e-5, far below the sketch's own), rounded to bf16: half the
   * memory to write and to read again.
   *
   * @param terms {@code [group][3]}: step, bias and the mean's score less the reference
   * @param lanes receives {@code [group][lanes]}: sums of the weights, still to be added up
   */
  static void weights(
      short[] sums,
      int group,
      float[] terms,
      float[] scales,
      short[] weights,
      int weightsAt,
      int stride,
      float[] lanes) {
    for (int g = 0; g < group; g++) {
      FloatVector steps = FloatVector.broadcast(F, terms[3 * g] * LOG2_E);
      FloatVector biases = FloatVector.broadcast(F, terms[3 * g + 1] * LOG2_E);
      FloatVector means = FloatVector.broadcast(F, terms[3 * g + 2] * LOG2_E + BIAS);
      FloatVector total = FloatVector.zero(F);
      for (int t = 0; t < TOKENS; t += LANES) {
        FloatVector exponent =
            KernelLanes.floats(sums, g * TOKENS + t)
                .fma(steps, biases)
                .fma(FloatVector.fromArray(F, scales, t), means);
        // As integers, since min and max of floats cost several times as much, for the sake of
        // NaN: what is below 0 is so as an integer too, and the rest is in the same order.
        FloatVector within =
            exponent.reinterpretAsInts().max(LEAST_BITS).min(MOST_BITS).reinterpretAsFloats();
        FloatVector shifted = within.add(ROUND);
        FloatVector f = within.sub(shifted.sub(ROUND));
        FloatVector p =
            FloatVector.broadcast(F, P3)
                .fma(f, FloatVector.broadcast(F, P2))
                .fma(f, FloatVector.broadcast(F, P1))
                .fma(f, FloatVector.broadcast(F, P0));
        IntVector bits = p.reinterpretAsInts().add(shifted.reinterpretAsInts().lanewise(LSHL, 23));
        IntVector rounded = bits.add(0x8000 - ((int) BIAS << 23)).and(0xFFFF_0000);
        ((ShortVector) rounded.lanewise(LSHR, 16).castShape(KernelLanes.S, 0))
            .intoArray(weights, weightsAt + g * stride + t);
        total = total.add(rounded.reinterpretAsFloats());
      }
      total.intoArray(lanes, g * LANES);
    }
  }
}
