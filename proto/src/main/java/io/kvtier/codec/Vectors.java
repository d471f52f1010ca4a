package io.kvtier.codec;

import io.kvtier.page.Codec;
import io.kvtier.page.PageLayout;
import java.util.Arrays;
import jdk.incubator.vector.FloatVector;

/**
 * Whether this process computes with the vector unit (jdk.incubator.vector) or in plain loops,
 * decided once: vectors must have 256 or 512 bits, and a small page must come out the same both
 * ways. The system property {@code kvtier.simd=off} forces plain loops.
 */
public final class Vectors {
  private static final String PROPERTY = "kvtier.simd";
  private static final Choice CHOICE = choose(System.getProperty(PROPERTY, ""));

  private Vectors() {}

  /**
   * What was decided.
   *
   * @param description one line for people
   */
  record Choice(boolean enabled, String description) {}

  /** Whether to use vector kernels. */
  public static boolean enabled() {
    return CHOICE.enabled;
  }

  /** One line for people: which kernels this process uses, and why if not vector kernels. */
  public static String description() {
    return CHOICE.description;
  }

  static Choice choose(String property) {
    if (property.equals("off")) {
      return new Choice(false, "scalar kernels (" + PROPERTY + "=off)");
    }
    try {
      int bits = Probe.bits();
      if (bits != 256 && bits != 512) {
        return new Choice(false, "scalar kernels (vectors of " + bits + " bits; 256 or 512 do)");
      }
      if (!Probe.agrees()) {
        return new Choice(false, "scalar kernels (vector kernels do not agree with them)");
      }
      return new Choice(true, "vector kernels, " + bits + " bits");
    } catch (LinkageError e) {
      return new Choice(
          false, "scalar kernels (start Java with --add-modules=jdk.incubator.vector)");
    }
  }

  /** Apart, so that the class above loads where the module is absent. */
  private static final class Probe {
    private static final int HEAD_DIM = 16;
    private static final int ROWS = 3;

    static int bits() {
      return FloatVector.SPECIES_PREFERRED.vectorBitSize();
    }

    static boolean agrees() {
      PageLayout layout = new PageLayout(Codec.ROT4, Codec.ROT4, 1, HEAD_DIM);
      float[] rows = new float[ROWS * HEAD_DIM];
      for (int i = 0; i < rows.length; i++) {
        rows[i] = (i * 37 % 64 - 32) / 8f;
      }
      byte[] scalar = new byte[layout.headLength() + HeadCodec.SLACK];
      byte[] vector = scalar.clone();
      float[] scalarRows = new float[rows.length];
      float[] vectorRows = new float[rows.length];
      HeadCodec reference = HeadCodec.of(HeadSide.keys(layout), false);
      HeadCodec kernels = HeadCodec.of(HeadSide.keys(layout), true);
      reference.encode(rows, 0, HEAD_DIM, ROWS, scalar);
      kernels.encode(rows, 0, HEAD_DIM, ROWS, vector);
      reference.decode(scalar, ROWS, scalarRows, 0, HEAD_DIM);
      kernels.decode(vector, ROWS, vectorRows, 0, HEAD_DIM);
      return Arrays.equals(scalar, vector) && Arrays.equals(scalarRows, vectorRows);
    }
  }
}
