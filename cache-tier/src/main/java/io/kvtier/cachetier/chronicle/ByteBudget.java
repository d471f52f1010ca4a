package io.kvtier.cachetier.chronicle;

import java.util.concurrent.atomic.AtomicLong;

/**
 * Bytes out of a bound: reserved before they are used, given back after. Safe for use by many
 * threads.
 */
final class ByteBudget {
  private final long max;
  private final AtomicLong used = new AtomicLong();

  ByteBudget(long max) {
    this.max = max;
  }

  /** Takes bytes if all of them fit below the bound. */
  boolean tryReserve(long bytes) {
    for (; ; ) {
      long before = used.get();
      if (bytes > max - before) {
        return false;
      }
      if (used.compareAndSet(before, before + bytes)) {
        return true;
      }
    }
  }

  /** Counts bytes that are there already, even beyond the bound. */
  void adopt(long bytes) {
    used.addAndGet(bytes);
  }

  void giveBack(long bytes) {
    long left = used.addAndGet(-bytes);
    assert left >= 0 : "gave back more than was reserved: " + left;
  }

  long used() {
    return used.get();
  }

  long max() {
    return max;
  }
}
