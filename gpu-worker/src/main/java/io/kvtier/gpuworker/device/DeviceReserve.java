package io.kvtier.gpuworker.device;

/**
 * A part of a device's memory that is kept for one holder: nobody else's slots are taken from it. A
 * slot that is released goes back to the part that it came from. Safe for any number of threads.
 */
public final class DeviceReserve implements AutoCloseable {
  private final DeviceMemory memory;
  private final long bytes;

  /** Bytes that no slot takes; guarded by the memory. */
  long idle;

  /** Guarded by the memory. */
  boolean closed;

  DeviceReserve(DeviceMemory memory, long bytes) {
    this.memory = memory;
    this.bytes = bytes;
    this.idle = bytes;
  }

  /** Bytes that it was made of. */
  public long bytes() {
    return bytes;
  }

  /**
   * Takes a slot as {@link DeviceMemory#allocate} does: from here, or from what all share where not
   * enough is left here.
   *
   * @throws io.kvtier.KvtierException EXHAUSTED if it fits in neither
   */
  public DeviceSlot allocate(int length) {
    return memory.allocate(length, this);
  }

  /** Gives back what no slot takes, and what slots take with their release; idempotent. */
  @Override
  public void close() {
    memory.close(this);
  }
}
