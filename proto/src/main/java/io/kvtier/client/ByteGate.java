package io.kvtier.client;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;

/**
 * A bound of bytes that are under way in total: who would go beyond it waits. One who asks for more
 * than there is passes alone. Safe for any number of threads.
 */
final class ByteGate {
  private final long max;
  private final ReentrantLock lock = new ReentrantLock();
  private final Condition changed = lock.newCondition();
  private long used;

  ByteGate(long max) {
    this.max = max;
  }

  /**
   * Takes bytes, {@link #leave} gives them back.
   *
   * @throws KvtierException EXHAUSTED if there is no room within the time
   */
  void enter(long bytes, long timeoutNs) {
    lock.lock();
    try {
      long leftNs = timeoutNs;
      while (used > 0 && bytes > max - used) {
        if (leftNs <= 0) {
          throw new KvtierException(
              Code.EXHAUSTED,
              "%d bytes of pages are being read, at most %d may, and %d more were asked; send the"
                      .formatted(used, max, bytes)
                  + " call again");
        }
        leftNs = changed.awaitNanos(leftNs);
      }
      used += bytes;
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new KvtierException(
          Code.UNAVAILABLE,
          "interrupted while waiting %d ms for room"
              .formatted(TimeUnit.NANOSECONDS.toMillis(timeoutNs)),
          e);
    } finally {
      lock.unlock();
    }
  }

  void leave(long bytes) {
    lock.lock();
    try {
      used -= bytes;
      changed.signalAll();
    } finally {
      lock.unlock();
    }
  }
}
