package io.kvtier.gpuworker.tornado;

import uk.ac.manchester.tornado.api.KernelContext;
import uk.ac.manchester.tornado.api.types.arrays.IntArray;

/** Copies staged blocks to their places in the arena: TornadoVM uploads whole arrays alone. */
final class WriteKernel {
  /** Ints of a block. */
  static final int BLOCK = 16;

  private WriteKernel() {}

  /**
   * One thread an int.
   *
   * @param places {@code [blocks]}: where each block goes, in blocks
   * @param stage {@code [blocks][16]}
   * @param count the first element: blocks that are staged
   */
  static void write(
      KernelContext context, IntArray arena, IntArray places, IntArray stage, IntArray count) {
    int i = context.globalIdx;
    if (i < count.get(0) * BLOCK) {
      arena.set(places.get(i >> 4) * BLOCK + (i & 15), stage.get(i));
    }
  }

  /** Copies an array, one thread an int: what measures a device's memory. */
  static void copy(KernelContext context, IntArray from, IntArray to) {
    int i = context.globalIdx;
    to.set(i, from.get(i));
  }
}
