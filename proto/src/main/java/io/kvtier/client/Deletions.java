package io.kvtier.client;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.page.PageKey;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashSet;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Set;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;

/**
 * Which pages are deleted, as far as copies and repairs under way may bring them back. Whoever may
 * have done so deletes them again, unless they have been put anew since; and a put waits while
 * somebody does, so that what is deleted again is never what it has stored. Safe for any number of
 * threads.
 */
final class Deletions {
  private final int keysMax;
  private final ReentrantLock lock = new ReentrantLock();
  private final Condition changed = lock.newCondition();

  /** By age: the oldest are forgotten first. */
  private final LinkedHashSet<PageKey> deleted = new LinkedHashSet<>();

  private final Set<PageKey> underWay = new HashSet<>();

  /**
   * Nothing is deleted.
   *
   * @param keysMax most pages to remember
   */
  Deletions(int keysMax) {
    this.keysMax = keysMax;
  }

  /** Notes that pages are deleted, before any node is told. */
  void deleted(Collection<PageKey> keys) {
    lock.lock();
    try {
      for (PageKey key : keys) {
        deleted.remove(key);
        deleted.add(key);
      }
      while (deleted.size() > keysMax) {
        deleted.removeFirst();
      }
    } finally {
      lock.unlock();
    }
  }

  /**
   * Notes that pages are wanted, before any node is sent one.
   *
   * @throws KvtierException DEADLINE if they are still being deleted after the time
   */
  void wanted(Collection<PageKey> keys, long timeoutNs) {
    lock.lock();
    try {
      long leftNs = timeoutNs;
      while (keys.stream().anyMatch(underWay::contains)) {
        if (leftNs <= 0) {
          throw new KvtierException(
              Code.DEADLINE,
              "pages are still being deleted after %d ms; send the call again"
                  .formatted(TimeUnit.NANOSECONDS.toMillis(timeoutNs)));
        }
        leftNs = changed.awaitNanos(leftNs);
      }
      keys.forEach(deleted::remove);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new KvtierException(Code.UNAVAILABLE, "interrupted while pages are being stored", e);
    } finally {
      lock.unlock();
    }
  }

  boolean isDeleted(PageKey key) {
    lock.lock();
    try {
      return deleted.contains(key);
    } finally {
      lock.unlock();
    }
  }

  /** Those of the pages that are to be deleted again; {@link #end} must follow. */
  List<PageKey> begin(Collection<PageKey> keys) {
    lock.lock();
    try {
      List<PageKey> again = new ArrayList<>();
      for (PageKey key : keys) {
        if (deleted.contains(key) && underWay.add(key)) {
          again.add(key);
        }
      }
      return again;
    } finally {
      lock.unlock();
    }
  }

  /** The pages have been deleted again, or could not be. */
  void end(Collection<PageKey> keys) {
    lock.lock();
    try {
      keys.forEach(underWay::remove);
      changed.signalAll();
    } finally {
      lock.unlock();
    }
  }
}
