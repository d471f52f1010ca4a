package io.kvtier.deploy.engine;

import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.IntVector;
import jdk.incubator.vector.VectorOperators;
import jdk.incubator.vector.VectorSpecies;

/**
 * The running softmax of flash attention (Dao et al., arXiv 2205.14135, algorithm 1; Milakov and
 * Gimelshein, arXiv 1805.02867) over a tile of scores, lane = query, in base 2.
 *
 * <p>2^x for x in [-126, 0]: x is split into n = round(x) and f = x - n, which is exact; 2^f is the
 * polynomial of degree 6 whose largest relative error over [-1/2, 1/2] is least (2e-9, below
 * rounding); 2^n is added to the exponent bits. Relative error at most 1e-7, which a test measures
 * over the whole range. Below -126 the result is 2^-126, which vanishes next to a sum of at least
 * 1.
 */
final class TileSoftmax {
  static final float LOG2_E = (float) (1 / Math.log(2));

  private static final VectorSpecies<Float> SPECIES = PanelKernel.SPECIES;
  private static final VectorSpecies<Integer> INTS =
      VectorSpecies.of(int.class, SPECIES.vectorShape());
  private static final int LANES = SPECIES.length();
  private static final int COLUMNS = PanelKernel.COLUMNS;

  /** Adding 1.5 * 2^23 leaves round(x) in the low mantissa bits. */
  private static final float ROUNDER = 12582912f;

  private static final float C1 = 0.6931472f;
  private static final float C2 = 0.24022648f;
  private static final float C3 = 0.055503324f;
  private static final float C4 = 0.009618437f;
  private static final float C5 = 0.0013398875f;
  private static final float C6 = 1.535336e-4f;

  private TileSoftmax() {}

  /** Sets scores of keys after a column's last visible key to minus infinity. */
  static void mask(float[] scores, int rows, int firstKey, int[] lastKeys) {
    FloatVector hidden = FloatVector.broadcast(SPECIES, Float.NEGATIVE_INFINITY);
    for (int column = 0; column < COLUMNS; column += LANES) {
      IntVector last = IntVector.fromArray(INTS, lastKeys, column);
      for (int row = 0; row < rows; row++) {
        int at = row * COLUMNS + column;
        FloatVector.fromArray(SPECIES, scores, at)
            .blend(hidden, last.lt(firstKey + row).cast(SPECIES))
            .intoArray(scores, at);
      }
    }
  }

  /**
   * Turns scores into weights and carries the running maximum and sum.
   *
   * @param scores {@code [rows][64]}, in units of log2; overwritten by 2^(score - maximum)
   * @param maximum {@code [64]}, raised to include this tile
   * @param sum {@code [64]}, rescaled and increased
   * @param rescale {@code [64]}, set to 2^(old maximum - new maximum)
   * @return whether any maximum rose, so that earlier output has to be multiplied by rescale
   */
  static boolean update(float[] scores, int rows, float[] maximum, float[] sum, float[] rescale) {
    boolean rose = false;
    for (int column = 0; column < COLUMNS; column += LANES) {
      FloatVector old = FloatVector.fromArray(SPECIES, maximum, column);
      FloatVector top = old;
      for (int row = 0; row < rows; row++) {
        top = top.max(FloatVector.fromArray(SPECIES, scores, row * COLUMNS + column));
      }
      FloatVector total = FloatVector.fromArray(SPECIES, sum, column);
      if (top.compare(VectorOperators.GT, old).anyTrue()) {
        rose = true;
        top.intoArray(maximum, column);
        old.sub(top).intoArray(rescale, column);
        exp2(rescale, column);
        total = total.mul(FloatVector.fromArray(SPECIES, rescale, column));
      } else {
        FloatVector.broadcast(SPECIES, 1f).intoArray(rescale, column);
      }
      for (int row = 0; row < rows; row++) {
        int at = row * COLUMNS + column;
        FloatVector x = FloatVector.fromArray(SPECIES, scores, at).sub(top).max(-126f);
        FloatVector rounded = x.add(ROUNDER);
        FloatVector f = x.sub(rounded.sub(ROUNDER));
        FloatVector p =
            f.fma(FloatVector.broadcast(SPECIES, C6), FloatVector.broadcast(SPECIES, C5));
        p = p.fma(f, FloatVector.broadcast(SPECIES, C4));
        p = p.fma(f, FloatVector.broadcast(SPECIES, C3));
        p = p.fma(f, FloatVector.broadcast(SPECIES, C2));
        p = p.fma(f, FloatVector.broadcast(SPECIES, C1));
        p = p.fma(f, FloatVector.broadcast(SPECIES, 1f));
        IntVector bits = rounded.reinterpretAsInts().lanewise(VectorOperators.LSHL, 23);
        p = p.reinterpretAsInts().add(bits).reinterpretAsFloats();
        p.intoArray(scores, at);
        total = total.add(p);
      }
      total.intoArray(sum, column);
    }
    return rose;
  }

  /** Replaces one vector of values in [-inf, 0] by 2 to their power, to the same error as above. */
  static void exp2(float[] values, int at) {
    FloatVector x = FloatVector.fromArray(SPECIES, values, at).max(-126f);
    FloatVector rounded = x.add(ROUNDER);
    FloatVector f = x.sub(rounded.sub(ROUNDER));
    FloatVector p = f.fma(FloatVector.broadcast(SPECIES, C6), FloatVector.broadcast(SPECIES, C5));
    p = p.fma(f, FloatVector.broadcast(SPECIES, C4));
    p = p.fma(f, FloatVector.broadcast(SPECIES, C3));
    p = p.fma(f, FloatVector.broadcast(SPECIES, C2));
    p = p.fma(f, FloatVector.broadcast(SPECIES, C1));
    p = p.fma(f, FloatVector.broadcast(SPECIES, 1f));
    IntVector bits = rounded.reinterpretAsInts().lanewise(VectorOperators.LSHL, 23);
    p.reinterpretAsInts().add(bits).reinterpretAsFloats().intoArray(values, at);
  }

  /** Multiplies {@code [rows][64]} by a factor for each column. */
  static void scaleColumns(float[] block, int rows, float[] factors) {
    for (int column = 0; column < COLUMNS; column += LANES) {
      FloatVector factor = FloatVector.fromArray(SPECIES, factors, column);
      for (int row = 0; row < rows; row++) {
        int at = row * COLUMNS + column;
        FloatVector.fromArray(SPECIES, block, at).mul(factor).intoArray(block, at);
      }
    }
  }
}
