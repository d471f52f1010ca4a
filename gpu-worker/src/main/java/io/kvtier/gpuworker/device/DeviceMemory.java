package io.kvtier.gpuworker.device;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import org.agrona.concurrent.UnsafeBuffer;
import org.jspecify.annotations.Nullable;

/**
 * A device's memory for sessions, bounded and counted to the byte. Slots start at multiples of 64
 * bytes, those of one length beside each other ({@link Slabs}); what slabs hold beyond their slots,
 * at most one of 4 MiB a length, is not counted. Parts can be reserved ({@link DeviceReserve}), so
 * that who must not fail later does not depend on what others take meanwhile. Safe for any number
 * of threads.
 */
public final class DeviceMemory implements AutoCloseable {
  private static final int ALIGNMENT = 64;

  private final long bytesMax;
  private final Slabs slabs = new Slabs();
  private long bytesUsed;

  /** Bytes of reserves that no slot takes. */
  private long bytesIdle;

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
    return allocate(length, null);
  }

  DeviceSlot allocate(int length, @Nullable DeviceReserve preferred) {
    int rounded = (length + ALIGNMENT - 1) & -ALIGNMENT;
    synchronized (this) {
      requireOpen();
      DeviceReserve from = preferred != null && preferred.idle >= rounded ? preferred : null;
      if (from == null) {
        requireFree(rounded);
      } else {
        from.idle -= rounded;
        bytesIdle -= rounded;
      }
      Slabs.Piece piece = slabs.take(rounded);
      bytesUsed += rounded;
      return new DeviceSlot(this, from, piece, new UnsafeBuffer(piece.address(), rounded));
    }
  }

  /**
   * Keeps so many bytes for one holder.
   *
   * @throws KvtierException EXHAUSTED if they do not fit
   */
  public synchronized DeviceReserve reserve(long bytes) {
    requireOpen();
    requireFree(bytes);
    bytesIdle += bytes;
    return new DeviceReserve(this, bytes);
  }

  /** The same; null if they do not fit. */
  public synchronized @Nullable DeviceReserve tryReserve(long bytes) {
    return !closed && bytes <= bytesFree() ? reserve(bytes) : null;
  }

  synchronized void close(DeviceReserve reserve) {
    bytesIdle -= reserve.idle;
    reserve.idle = 0;
    reserve.closed = true;
  }

  /**
   * Counts bytes that are held elsewhere, in the name of the device.
   *
   * @throws KvtierException EXHAUSTED if they do not fit
   */
  public synchronized void occupy(long bytes) {
    requireOpen();
    requireFree(bytes);
    bytesUsed += bytes;
  }

  /** Ends what {@link #occupy} began. */
  public synchronized void vacate(long bytes) {
    bytesUsed -= bytes;
  }

  private void requireOpen() {
    if (closed) {
      throw new KvtierException(Code.UNAVAILABLE, "the device is closed");
    }
  }

  /**
   * Refuses unless so many bytes are neither used nor reserved.
   *
   * @throws KvtierException EXHAUSTED
   */
  public synchronized void requireFree(long bytes) {
    if (bytes > bytesFree()) {
      throw new KvtierException(
          Code.EXHAUSTED,
          ("device memory is full: %d of %d bytes are used, %d more are needed; close sessions or"
                  + " start the worker with more device bytes")
              .formatted(bytesUsed + bytesIdle, bytesMax, bytes));
    }
  }

  synchronized void free(Slabs.Piece piece, int length, @Nullable DeviceReserve reserve) {
    bytesUsed -= length;
    if (reserve != null && !reserve.closed) {
      reserve.idle += length;
      bytesIdle += length;
    }
    slabs.give(piece);
    if (closed) {
      slabs.trim();
    }
  }

  /** Bytes of slots. */
  public synchronized long bytesUsed() {
    return bytesUsed;
  }

  /** Bytes that are neither used nor reserved. */
  public synchronized long bytesFree() {
    return bytesMax - bytesUsed - bytesIdle;
  }

  public long bytesMax() {
    return bytesMax;
  }

  /** Gives out no more slots; those held stay valid until they are released. */
  @Override
  public synchronized void close() {
    closed = true;
    slabs.trim();
  }
}
