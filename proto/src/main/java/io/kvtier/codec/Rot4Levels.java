package io.kvtier.codec;

import static io.kvtier.page.PageLayout.TOKENS;
import static java.nio.ByteOrder.LITTLE_ENDIAN;

import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.VectorMask;
import jdk.incubator.vector.VectorOperators;
import jdk.incubator.vector.VectorSpecies;
import org.agrona.DirectBuffer;

/**
 * The planes of rot4 keys decoded with the vector unit: each word of 64 token bits is a mask over
 * lanes. Gives what {@link Rot4} gives, to the bit. Static, no allocation.
 */
public final class Rot4Levels {
  private static final VectorSpecies<Float> LANES = FloatVector.SPECIES_PREFERRED;

  private Rot4Levels() {}

  /** As {@link Rot4#sketchLevels}. */
  public static void sketch(
      DirectBuffer sign,
      int signAt,
      DirectBuffer coarse,
      int coarseAt,
      int headDim,
      float[] levels) {
    FloatVector low = FloatVector.broadcast(LANES, Rot4.coarseMagnitude(0));
    FloatVector high = FloatVector.broadcast(LANES, Rot4.coarseMagnitude(1));
    for (int i = 0; i < headDim; i++) {
      long s = sign.getLong(signAt + i * Long.BYTES, LITTLE_ENDIAN);
      long c = coarse.getLong(coarseAt + i * Long.BYTES, LITTLE_ENDIAN);
      for (int t = 0; t < TOKENS; t += LANES.length()) {
        FloatVector level = low.blend(high, VectorMask.fromLong(LANES, c >>> t));
        level
            .lanewise(VectorOperators.NEG, VectorMask.fromLong(LANES, s >>> t))
            .intoArray(levels, i * TOKENS + t);
      }
    }
  }

  /** As {@link Rot4#keyLevels}. */
  public static void keys(
      DirectBuffer sketch,
      int signAt,
      int coarseAt,
      DirectBuffer fine,
      int fineAt,
      int headDim,
      float[] levels) {
    for (int i = 0; i < headDim; i++) {
      long s = sketch.getLong(signAt + i * Long.BYTES, LITTLE_ENDIAN);
      long c = sketch.getLong(coarseAt + i * Long.BYTES, LITTLE_ENDIAN);
      long middle = fine.getLong(fineAt + 2 * i * Long.BYTES, LITTLE_ENDIAN);
      long last = fine.getLong(fineAt + (2 * i + 1) * Long.BYTES, LITTLE_ENDIAN);
      for (int t = 0; t < TOKENS; t += LANES.length()) {
        VectorMask<Float> isLast = VectorMask.fromLong(LANES, last >>> t);
        VectorMask<Float> isMiddle = VectorMask.fromLong(LANES, middle >>> t);
        FloatVector lower = pair(0, isLast).blend(pair(2, isLast), isMiddle);
        FloatVector upper = pair(4, isLast).blend(pair(6, isLast), isMiddle);
        lower
            .blend(upper, VectorMask.fromLong(LANES, c >>> t))
            .lanewise(VectorOperators.NEG, VectorMask.fromLong(LANES, s >>> t))
            .intoArray(levels, i * TOKENS + t);
      }
    }
  }

  /** Magnitude {@code level}, or the next one where the last bit is set. */
  private static FloatVector pair(int level, VectorMask<Float> isLast) {
    return FloatVector.broadcast(LANES, Rot4.magnitude(level))
        .blend(Rot4.magnitude(level + 1), isLast);
  }
}
