package io.kvtier.gpuworker.device;

import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import org.agrona.concurrent.UnsafeBuffer;
import org.jspecify.annotations.Nullable;

/**
 * A piece of device memory with a count of holders; the last release gives it back. The host sees
 * it; a device with memory of its own keeps its copy with it. Whoever reads or writes it must hold
 * it. The counting is safe for any number of threads; the contents are written once, before the
 * slot is shown to other threads.
 */
public final class DeviceSlot {
  private final DeviceMemory owner;
  private final @Nullable DeviceReserve reserve;
  private final Slabs.Piece piece;
  private final UnsafeBuffer buffer;
  private final long address;
  private final AtomicInteger holders = new AtomicInteger(1);
  private final AtomicReference<@Nullable Copy> copy = new AtomicReference<>();

  /**
   * Where else a slot's contents are, on a device whose memory the host does not see. One
   * implementation a device.
   */
  public interface Copy {
    /** Lets go of it; called once, with the slot's last release. */
    void release();
  }

  DeviceSlot(
      DeviceMemory owner, @Nullable DeviceReserve reserve, Slabs.Piece piece, UnsafeBuffer buffer) {
    this.owner = owner;
    this.reserve = reserve;
    this.piece = piece;
    this.buffer = buffer;
    this.address = buffer.addressOffset();
  }

  /** The slot's bytes; valid while held. */
  public UnsafeBuffer buffer() {
    return buffer;
  }

  /** Where the bytes are; valid while held. */
  public long address() {
    return address;
  }

  /** Bytes that it takes on the device. */
  public int length() {
    return buffer.capacity();
  }

  /** The copy that a device has of the contents; null if it has none. */
  public @Nullable Copy copy() {
    return copy.get();
  }

  /** Takes a copy of the contents, which goes with the slot; the caller holds the slot. */
  public void attach(Copy made) {
    if (!copy.compareAndSet(null, made)) {
      throw new IllegalStateException("the slot has a copy already");
    }
  }

  /** Holds the slot once more, unless its last holder has let go. */
  public boolean tryRetain() {
    int count = holders.get();
    while (count > 0) {
      if (holders.compareAndSet(count, count + 1)) {
        return true;
      }
      count = holders.get();
    }
    return false;
  }

  /** Holds a slot once more that the caller knows to be held. */
  public DeviceSlot retain() {
    if (!tryRetain()) {
      throw new IllegalStateException("slot was given back already");
    }
    return this;
  }

  /** Lets go once. */
  public void release() {
    int count = holders.decrementAndGet();
    if (count == 0) {
      Copy made = copy.get();
      if (made != null) {
        made.release();
      }
      owner.free(piece, buffer.capacity(), reserve);
    } else if (count < 0) {
      throw new IllegalStateException("slot released more often than held");
    }
  }
}
