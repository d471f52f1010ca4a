package io.kvtier.gpuworker.session;

import io.kvtier.gpuworker.device.DeviceMemory;
import io.kvtier.gpuworker.device.DeviceReserve;
import java.util.concurrent.Semaphore;
import org.jspecify.annotations.Nullable;

/**
 * Device memory for rows and pages on their way through a session's steps. The least that a step
 * can do with is the session's own from its opening on, so that no step depends on what others
 * hold; a step has more while nobody else needs it. Safe for any number of threads.
 */
final class Staging implements AutoCloseable {
  /** Pages of a head each: as many as the choice of a step has parts, which each need one. */
  static final int SLOTS_LEAST = 4;

  private final DeviceMemory memory;
  private final int slotBytes;
  private final int onceBytes;
  private final DeviceReserve least;
  private final Semaphore leastIsFree = new Semaphore(1);

  /** What one step may stage, until it is closed. */
  final class Lease implements AutoCloseable {
    private final DeviceReserve reserve;
    private final int slots;

    private Lease(DeviceReserve reserve, int slots) {
      this.reserve = reserve;
      this.slots = slots;
    }

    /** Where slots are taken from. */
    DeviceReserve memory() {
      return reserve;
    }

    /** Pages of a head each. */
    int slots() {
      return slots;
    }

    @Override
    public void close() {
      if (reserve == least) {
        leastIsFree.release();
      } else {
        reserve.close();
      }
    }
  }

  /**
   * Reserves the least.
   *
   * @param slotBytes most bytes of a page of a head
   * @param onceBytes that a step may take beside slots, however many
   * @throws io.kvtier.KvtierException EXHAUSTED if the device has not as much
   */
  Staging(DeviceMemory memory, int slotBytes, int onceBytes) {
    this.memory = memory;
    this.slotBytes = slotBytes;
    this.onceBytes = onceBytes;
    this.least = memory.reserve(leastBytes(slotBytes, onceBytes));
  }

  static long leastBytes(int slotBytes, int onceBytes) {
    return (long) SLOTS_LEAST * slotBytes + onceBytes;
  }

  /** Device bytes that are the session's own. */
  long leastBytes() {
    return least.bytes();
  }

  /**
   * Memory for one step: as much as it wants, or what there is. Waits for another step of the
   * session where the device has none left and that has the session's own; such a step waits for no
   * layer.
   */
  Lease lease(int slotsWanted) {
    for (int slots = slotsWanted; slots > SLOTS_LEAST; slots /= 2) {
      Lease lease = tryLease(slots);
      if (lease != null) {
        return lease;
      }
    }
    int slots = Math.min(slotsWanted, SLOTS_LEAST);
    if (leastIsFree.tryAcquire()) {
      return new Lease(least, slots);
    }
    Lease lease = tryLease(slots);
    if (lease != null) {
      return lease;
    }
    leastIsFree.acquireUninterruptibly();
    return new Lease(least, slots);
  }

  private @Nullable Lease tryLease(int slots) {
    DeviceReserve more =
        memory.tryReserve((long) Math.max(SLOTS_LEAST, slots) * slotBytes + onceBytes);
    return more == null ? null : new Lease(more, slots);
  }

  @Override
  public void close() {
    least.close();
  }
}
