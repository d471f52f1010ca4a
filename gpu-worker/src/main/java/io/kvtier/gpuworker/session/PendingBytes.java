package io.kvtier.gpuworker.session;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;

/**
 * Bytes of pages that wait to be stored, of all sessions of a worker together, and their bound: a
 * tier that is away must not fill the heap, however many sessions write to it.
 *
 * <p>Half of the bound is for whoever comes first. The other half is kept for sessions that have
 * little waiting, less than a 256th of the bound, so that they are not starved by those that have
 * much. Safe for any number of threads.
 */
public final class PendingBytes {
  private static final int LITTLE_SHARE = 256;

  private final long bytesMax;
  private final ReentrantLock lock = new ReentrantLock();
  private final Condition given = lock.newCondition();
  private long bytes;

  /** Nothing waits. */
  public PendingBytes(long bytesMax) {
    KvtierException.requireInRange("pending bytes total max", bytesMax, 1, Long.MAX_VALUE);
    this.bytesMax = bytesMax;
  }

  /** Bytes that wait, and those that calls under way may add. */
  long bytes() {
    lock.lock();
    try {
      return bytes;
    } finally {
      lock.unlock();
    }
  }

  /** Of one more session, which has nothing waiting. */
  Share newShare() {
    return new Share();
  }

  /** What of it is one session's. */
  final class Share {
    private long own;

    private Share() {}

    /**
     * Waits until the session may have some more bytes, and takes them. If nothing waits at all,
     * they may be more than the bound.
     *
     * @param untilNs longest, as {@link System#nanoTime}
     * @return whether they are taken
     */
    boolean take(long more, long untilNs) {
      lock.lock();
      try {
        while (bytes > 0 && bytes + more > bytesMaxNow()) {
          long leftNs = untilNs - System.nanoTime();
          if (leftNs <= 0) {
            return false;
          }
          var _ = given.awaitNanos(leftNs);
        }
        add(more);
        return true;
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
        throw new KvtierException(Code.UNAVAILABLE, "interrupted while pages are being stored", e);
      } finally {
        lock.unlock();
      }
    }

    /** Up to where bytes of the session may fill what is bounded. */
    private long bytesMaxNow() {
      return own < bytesMax / LITTLE_SHARE ? bytesMax : bytesMax / 2;
    }

    /** Takes bytes that room was taken for before. */
    void add(long more) {
      lock.lock();
      try {
        own += more;
        bytes += more;
      } finally {
        lock.unlock();
      }
    }

    /** Gives bytes back. */
    void give(long less) {
      lock.lock();
      try {
        own -= less;
        bytes -= less;
        given.signalAll();
      } finally {
        lock.unlock();
      }
    }

    /** Why bytes could not be taken. */
    String refusal(long more) {
      lock.lock();
      try {
        return ("%d bytes of pages of all sessions wait for the tier, %d of them this session's,"
                + " and %d more are needed; at most %d may wait (%d for a session that has"
                + " little waiting); send the call again, or start the worker with more pending"
                + " bytes")
            .formatted(bytes, own, more, bytesMaxNow(), bytesMax);
      } finally {
        lock.unlock();
      }
    }
  }
}
