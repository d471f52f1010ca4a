package io.kvtier.gpuworker.tornado;

import io.kvtier.gpuworker.device.DeviceSlot;

/**
 * A piece of a lane's resident buffer.
 *
 * @param first block
 * @param blocks how many
 */
record Place(Lane lane, int first, int blocks) implements DeviceSlot.Copy {
  /** The piece's first int. */
  int firstInt() {
    return first * WriteKernel.BLOCK;
  }

  /**
   * Takes a piece of at least so many bytes.
   *
   * @throws io.kvtier.KvtierException EXHAUSTED if there is none
   */
  static Place take(Lane lane, long bytes) {
    int blocks = Arena.blocksOf(Math.max(1, bytes));
    return new Place(lane, lane.arena.take(blocks), blocks);
  }

  @Override
  public void release() {
    lane.arena.give(first, blocks);
  }
}
