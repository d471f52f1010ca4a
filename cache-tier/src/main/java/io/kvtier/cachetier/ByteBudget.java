package io.kvtier.cachetier;

import java.util.concurrent.atomic.AtomicLong;

/**
 * Bytes out of a bound: reserved before they are used, given back after. Safe for use by many
 * threads.
 */
public final class ByteBudget {
  private final long max;
  private final AtomicLong used = new AtomicLong();

  public ByteBudget(long max) {
    this.max = max;
  }

  /** Takes bytes if all of them fit below the bound. */
  public boolean tryReserve(long bytes) {
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
  public void adopt(long bytes) {
    used.addAndGet(bytes);
  }

  /** Gives back bytes that were reserved or adopted. */
  public void giveBack(long bytes) {
    long left = used.addAndGet(-bytes);
    assert left >= 0 : "gave back more than was reserved: " + left;
  }

  /** Bytes reserved or adopted and not given back. */
  public long used() {
    return used.get();
  }

  /** The bound. */
  public long max() {
    return max;
  }
}
