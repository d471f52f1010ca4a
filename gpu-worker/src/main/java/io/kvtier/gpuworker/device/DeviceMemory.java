package io.kvtier.gpuworker.device;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import org.agrona.UnsafeApi;
import org.agrona.concurrent.UnsafeBuffer;

/**
 * A device's memory for sessions, bounded and counted to the byte. Slots start at multiples of 64
 * bytes; a slot's memory goes back to the system's allocator at its last release. Safe for any
 * number of threads.
 */
public final class DeviceMemory implements AutoCloseable {
  private static final int ALIGNMENT = 64;

  private final long bytesMax;
  private long bytesUsed;
  private boolean closed;

  public DeviceMemory(long bytesMax) {
    KvtierException.requireInRange("device bytes", bytesMax, 1, Long.MAX_VALUE);
    this.bytesMax = bytesMax;
  }

  /**
   * Takes a slot of at least {@code length} bytes, of unknown contents, held once.
   *
   * @throws KvtierException EXHAUSTED if it does not fit
   */
  public DeviceSlot allocate(int length) {
    int rounded = (length + ALIGNMENT - 1) & -ALIGNMENT;
    reserve(rounded);
    // The allocator aligns to less than a cache line; the slack is not counted, as its own headers
    // are not.
    long memory = UnsafeApi.allocateMemory((long) rounded + ALIGNMENT);
    long aligned = (memory + ALIGNMENT - 1) & -ALIGNMENT;
    return new DeviceSlot(this, memory, new UnsafeBuffer(aligned, rounded));
  }

  private synchronized void reserve(int bytes) {
    if (closed) {
      throw new KvtierException(Code.UNAVAILABLE, "the device is closed");
    }
    if (bytesUsed + bytes > bytesMax) {
      throw new KvtierException(
          Code.EXHAUSTED,
          ("device memory is full: %d of %d bytes are used, %d more are needed; close sessions or"
                  + " start the worker with more device bytes")
              .formatted(bytesUsed, bytesMax, bytes));
    }
    bytesUsed += bytes;
  }

  void free(long memory, int length) {
    UnsafeApi.freeMemory(memory);
    synchronized (this) {
      bytesUsed -= length;
    }
  }

  public synchronized long bytesUsed() {
    return bytesUsed;
  }

  public long bytesMax() {
    return bytesMax;
  }

  /** Gives out no more slots; those held stay valid until they are released. */
  @Override
  public synchronized void close() {
    closed = true;
  }
}
