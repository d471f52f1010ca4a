package io.kvtier.gpuworker.tornado;

import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import uk.ac.manchester.tornado.api.types.arrays.IntArray;

/** Copies between the heap and the host's side of arrays. */
final class Ints {
  private Ints() {}

  /** Copies the first {@code length} of an array. */
  static void copy(int[] from, int length, IntArray to, int at) {
    MemorySegment.copy(
        from, 0, to.getSegment(), ValueLayout.JAVA_INT, (long) at * Integer.BYTES, length);
  }
}
