package io.kvtier.attention;

import static jdk.incubator.vector.VectorOperators.LSHR;

import io.kvtier.codec.RotLevels;
import java.lang.foreign.ValueLayout;
import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.IntVector;
import jdk.incubator.vector.VectorSpecies;

/** What four bits leave of single tokens' keys and values (rot8), lane = dimension. */
final class RestKernels {
  private static final float CENTER = RotLevels.REST_CENTER;
  private static final VectorSpecies<Float> F = KernelLanes.F;
  private static final int LANES = KernelLanes.LANES;
  private static final int CHUNK = 32;

  private RestKernels() {}

  /**
   * Reads a row of codes.
   *
   * @param codes address; 16 bytes a chunk of 32 dimensions
   * @param rest receives {@code [headDim]}, in steps
   */
  static void read(long codes, int headDim, float[] rest) {
    int whole = headDim & -CHUNK;
    for (int chunk = 0; chunk < whole; chunk += CHUNK) {
      for (int lane = 0; lane < CHUNK / 2; lane += LANES) {
        IntVector pair = KernelLanes.pair(codes + chunk / 2 + lane);
        KernelLanes.floats(pair.and(15)).sub(CENTER).intoArray(rest, chunk + lane);
        KernelLanes.floats(pair.lanewise(LSHR, 4))
            .sub(CENTER)
            .intoArray(rest, chunk + CHUNK / 2 + lane);
      }
    }
    for (int j = 0; j < (headDim - whole) / 2; j++) {
      int pair = OffHeap.ALL.get(ValueLayout.JAVA_BYTE, codes + whole / 2 + j) & 0xFF;
      rest[whole + j] = (pair & 15) - CENTER;
      rest[whole + (headDim - whole) / 2 + j] = (pair >> 4) - CENTER;
    }
  }

  /** The product of a rotated query and a row. */
  static float dot(float[] rotated, int at, float[] rest, int headDim) {
    FloatVector sum = FloatVector.zero(F);
    for (int i = 0; i < headDim; i += LANES) {
      sum = FloatVector.fromArray(F, rotated, at + i).fma(FloatVector.fromArray(F, rest, i), sum);
    }
    return KernelLanes.sum(sum);
  }

  /** {@code sums[at + i] += weight x rest[i]}, in the order of {@link Scratch#order}. */
  static void add(float[] rest, int headDim, float weight, float[] sums, int at) {
    int whole = headDim & -CHUNK;
    for (int i = 0; i < whole; i += LANES) {
      FloatVector.fromArray(F, rest, i)
          .fma(FloatVector.broadcast(F, weight), FloatVector.fromArray(F, sums, at + i))
          .intoArray(sums, at + i);
    }
    int half = (headDim - whole) / 2;
    for (int j = 0; j < half; j++) {
      sums[at + whole + j] += weight * rest[whole + j];
      sums[at + whole + CHUNK / 2 + j] += weight * rest[whole + half + j];
    }
  }
}
