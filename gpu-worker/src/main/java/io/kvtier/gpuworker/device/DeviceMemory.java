package io.kvtier.gpuworker.device;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import org.agrona.concurrent.UnsafeBuffer;

/**
 * A device's memory for sessions, bounded and counted to the byte. Slots start at multiples of 64
 * bytes, those of one length beside each other ({@link Slabs}); what slabs hold beyond their slots,
 * at most one of 4 MiB a length, is not counted. Safe for any number of threads.
 */
public final class DeviceMemory implements AutoCloseable {
  private static final int ALIGNMENT = 64;

  private final long bytesMax;
  private final Slabs slabs = new Slabs();
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
    Slabs.Piece piece = take(rounded);
    return new DeviceSlot(this, piece, new UnsafeBuffer(piece.address(), rounded));
  }

  private synchronized Slabs.Piece take(int length) {
    requireRoom(length);
    Slabs.Piece piece = slabs.take(length);
    bytesUsed += length;
    return piece;
  }

  /**
   * Counts bytes that are held elsewhere, in the name of the device.
   *
   * @throws KvtierException EXHAUSTED if they do not fit
   */
  public synchronized void occupy(long bytes) {
    requireRoom(bytes);
    bytesUsed += bytes;
  }

  /** Ends what {@link #occupy} began. */
  public synchronized void vacate(long bytes) {
    bytesUsed -= bytes;
  }

  private void requireRoom(long bytes) {
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
  }

  synchronized void free(Slabs.Piece piece, int length) {
    bytesUsed -= length;
    slabs.give(piece);
    if (closed) {
      slabs.trim();
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
    slabs.trim();
  }
}
