package io.kvtier.deploy.engine;

import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.VectorSpecies;

/**
 * The one inner loop of the engine: {@code C[rows][64] = start[rows][64] + A[rows][depth] *
 * B[depth][64]} in fp32.
 *
 * <p>Projections, attention scores and weighted values are all this product over different strides:
 *
 * <pre>
 *   product     rows        depth        A                  B                        C
 *   projection  tokens      inputs       activations        packed weights           activations
 *   scores      keys        head dim     keys               queries, dimension-major scores
 *   values      head dim    keys         values transposed  weights                  output, dimension-major
 * </pre>
 *
 * Four rows by four vectors are held in registers, so each load of B feeds four multiply-adds and
 * each broadcast of A feeds four. Vectors never leave the method that made them: passed through
 * helpers they would be boxed.
 */
final class PanelKernel {
  /** Columns of a panel. A multiple of four vectors of every supported width. */
  static final int COLUMNS = 64;

  static final VectorSpecies<Float> SPECIES =
      FloatVector.SPECIES_PREFERRED.length() > 16
          ? FloatVector.SPECIES_512
          : FloatVector.SPECIES_PREFERRED;
  private static final int LANES = SPECIES.length();
  private static final int STRIP = 4 * LANES;

  private PanelKernel() {}

  /** What the rows of C start from when they start from nothing. */
  static final float[] ZEROS = new float[COLUMNS];

  /**
   * Multiplies a block of rows with a panel.
   *
   * @param a element (i, k) is at {@code aOffset + i * aRow + k * aStep}
   * @param b element (k, j) is at {@code bOffset + k * 64 + j}
   * @param start what element (i, j) of C starts from is at {@code startOffset + i * startRow + j}:
   *     C itself to add to it, a bias with {@code startRow} 0, or {@link #ZEROS}
   * @param c element (i, j) is at {@code cOffset + i * cRow + j}; overwritten
   */
  static void multiply(
      int rows,
      int depth,
      float[] a,
      int aOffset,
      int aRow,
      int aStep,
      float[] b,
      int bOffset,
      float[] start,
      int startOffset,
      int startRow,
      float[] c,
      int cOffset,
      int cRow) {
    for (int strip = 0; strip < COLUMNS; strip += STRIP) {
      int b0 = bOffset + strip;
      int i = 0;
      for (; i + 4 <= rows; i += 4) {
        int a0 = aOffset + i * aRow;
        int t0 = startOffset + i * startRow + strip;
        int c0 = cOffset + i * cRow + strip;
        fourRows(depth, a, a0, aRow, aStep, b, b0, start, t0, startRow, c, c0, cRow);
      }
      for (; i < rows; i++) {
        int a0 = aOffset + i * aRow;
        int t0 = startOffset + i * startRow + strip;
        oneRow(depth, a, a0, aStep, b, b0, start, t0, c, cOffset + i * cRow + strip);
      }
    }
  }

  private static void fourRows(
      int depth,
      float[] a,
      int a0,
      int aRow,
      int aStep,
      float[] b,
      int b0,
      float[] start,
      int t0,
      int tRow,
      float[] c,
      int c0,
      int cRow) {
    FloatVector s00 = FloatVector.zero(SPECIES), s01 = s00, s02 = s00, s03 = s00;
    FloatVector s10 = s00, s11 = s00, s12 = s00, s13 = s00;
    FloatVector s20 = s00, s21 = s00, s22 = s00, s23 = s00;
    FloatVector s30 = s00, s31 = s00, s32 = s00, s33 = s00;
    for (int k = 0; k < depth; k++) {
      int at = b0 + k * COLUMNS;
      FloatVector y0 = FloatVector.fromArray(SPECIES, b, at);
      FloatVector y1 = FloatVector.fromArray(SPECIES, b, at + LANES);
      FloatVector y2 = FloatVector.fromArray(SPECIES, b, at + 2 * LANES);
      FloatVector y3 = FloatVector.fromArray(SPECIES, b, at + 3 * LANES);
      FloatVector x = FloatVector.broadcast(SPECIES, a[a0 + k * aStep]);
      s00 = y0.fma(x, s00);
      s01 = y1.fma(x, s01);
      s02 = y2.fma(x, s02);
      s03 = y3.fma(x, s03);
      x = FloatVector.broadcast(SPECIES, a[a0 + aRow + k * aStep]);
      s10 = y0.fma(x, s10);
      s11 = y1.fma(x, s11);
      s12 = y2.fma(x, s12);
      s13 = y3.fma(x, s13);
      x = FloatVector.broadcast(SPECIES, a[a0 + 2 * aRow + k * aStep]);
      s20 = y0.fma(x, s20);
      s21 = y1.fma(x, s21);
      s22 = y2.fma(x, s22);
      s23 = y3.fma(x, s23);
      x = FloatVector.broadcast(SPECIES, a[a0 + 3 * aRow + k * aStep]);
      s30 = y0.fma(x, s30);
      s31 = y1.fma(x, s31);
      s32 = y2.fma(x, s32);
      s33 = y3.fma(x, s33);
    }
    s00.add(FloatVector.fromArray(SPECIES, start, t0)).intoArray(c, c0);
    s01.add(FloatVector.fromArray(SPECIES, start, t0 + LANES)).intoArray(c, c0 + LANES);
    s02.add(FloatVector.fromArray(SPECIES, start, t0 + 2 * LANES)).intoArray(c, c0 + 2 * LANES);
    s03.add(FloatVector.fromArray(SPECIES, start, t0 + 3 * LANES)).intoArray(c, c0 + 3 * LANES);
    t0 += tRow;
    c0 += cRow;
    s10.add(FloatVector.fromArray(SPECIES, start, t0)).intoArray(c, c0);
    s11.add(FloatVector.fromArray(SPECIES, start, t0 + LANES)).intoArray(c, c0 + LANES);
    s12.add(FloatVector.fromArray(SPECIES, start, t0 + 2 * LANES)).intoArray(c, c0 + 2 * LANES);
    s13.add(FloatVector.fromArray(SPECIES, start, t0 + 3 * LANES)).intoArray(c, c0 + 3 * LANES);
    t0 += tRow;
    c0 += cRow;
    s20.add(FloatVector.fromArray(SPECIES, start, t0)).intoArray(c, c0);
    s21.add(FloatVector.fromArray(SPECIES, start, t0 + LANES)).intoArray(c, c0 + LANES);
    s22.add(FloatVector.fromArray(SPECIES, start, t0 + 2 * LANES)).intoArray(c, c0 + 2 * LANES);
    s23.add(FloatVector.fromArray(SPECIES, start, t0 + 3 * LANES)).intoArray(c, c0 + 3 * LANES);
    t0 += tRow;
    c0 += cRow;
    s30.add(FloatVector.fromArray(SPECIES, start, t0)).intoArray(c, c0);
    s31.add(FloatVector.fromArray(SPECIES, start, t0 + LANES)).intoArray(c, c0 + LANES);
    s32.add(FloatVector.fromArray(SPECIES, start, t0 + 2 * LANES)).intoArray(c, c0 + 2 * LANES);
    s33.add(FloatVector.fromArray(SPECIES, start, t0 + 3 * LANES)).intoArray(c, c0 + 3 * LANES);
  }

  private static void oneRow(
      int depth,
      float[] a,
      int a0,
      int aStep,
      float[] b,
      int b0,
      float[] start,
      int t0,
      float[] c,
      int c0) {
    FloatVector s0 = FloatVector.fromArray(SPECIES, start, t0);
    FloatVector s1 = FloatVector.fromArray(SPECIES, start, t0 + LANES);
    FloatVector s2 = FloatVector.fromArray(SPECIES, start, t0 + 2 * LANES);
    FloatVector s3 = FloatVector.fromArray(SPECIES, start, t0 + 3 * LANES);
    for (int k = 0; k < depth; k++) {
      int at = b0 + k * COLUMNS;
      FloatVector x = FloatVector.broadcast(SPECIES, a[a0 + k * aStep]);
      s0 = FloatVector.fromArray(SPECIES, b, at).fma(x, s0);
      s1 = FloatVector.fromArray(SPECIES, b, at + LANES).fma(x, s1);
      s2 = FloatVector.fromArray(SPECIES, b, at + 2 * LANES).fma(x, s2);
      s3 = FloatVector.fromArray(SPECIES, b, at + 3 * LANES).fma(x, s3);
    }
    s0.intoArray(c, c0);
    s1.intoArray(c, c0 + LANES);
    s2.intoArray(c, c0 + 2 * LANES);
    s3.intoArray(c, c0 + 3 * LANES);
  }
}
