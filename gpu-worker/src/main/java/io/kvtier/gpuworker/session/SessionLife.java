package io.kvtier.gpuworker.session;

import static io.kvtier.KvtierException.precondition;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.ReentrantReadWriteLock;
import java.util.function.Consumer;
import java.util.function.Supplier;

/**
 * Whether a session is open, and in which epoch. Calls share it; closing and a new epoch wait for
 * those under way, so that nothing of an old epoch happens after the new one has begun.
 */
final class SessionLife {
  private final String sessionId;
  private final ReentrantReadWriteLock lock = new ReentrantReadWriteLock();
  private volatile long epoch;
  private volatile long usedNs = System.nanoTime();
  private boolean closed;

  SessionLife(String sessionId, long epoch) {
    this.sessionId = sessionId;
    this.epoch = epoch;
  }

  long epoch() {
    return epoch;
  }

  /**
   * Runs a call.
   *
   * @throws KvtierException NOT_FOUND if the session is closed
   */
  <T> T whileOpen(Supplier<T> call) {
    lock.readLock().lock();
    try {
      if (closed) {
        throw Sessions.unknown(sessionId);
      }
      return call.get();
    } finally {
      usedNs = System.nanoTime();
      lock.readLock().unlock();
    }
  }

  /** Nanoseconds without a call; 0 while one is under way. */
  long idleNs(long nowNs) {
    return lock.getReadLockCount() > 0 ? 0 : Math.max(0, nowNs - usedNs);
  }

  /**
   * Runs a call of an epoch, which stays the session's until the call returns.
   *
   * @throws KvtierException NOT_FOUND if the session is closed, PRECONDITION if the epoch is not
   *     the session's
   */
  <T> T inEpoch(long asked, Supplier<T> call) {
    return whileOpen(() -> {
      requireEpoch(asked);
      return call.get();
    });
  }

  void requireEpoch(long asked) {
    if (epoch != asked) {
      throw precondition(
          "epoch %d of session %s is stale; it is in epoch %d", asked, sessionId, epoch);
    }
  }

  /** Runs something unless the session is closed, or about to be. */
  void tryWhileOpen(Runnable call) {
    if (!lock.readLock().tryLock()) {
      return;
    }
    try {
      if (!closed) {
        call.run();
      }
    } finally {
      lock.readLock().unlock();
    }
  }

  /**
   * Begins a newer epoch once no call is under way, and runs something then.
   *
   * @param timeoutNs longest wait
   * @throws KvtierException PRECONDITION if the epoch is not newer, UNAVAILABLE if calls take
   *     longer
   */
  <T> T raise(long to, long timeoutNs, Supplier<T> then) {
    try {
      if (!lock.writeLock().tryLock(timeoutNs, TimeUnit.NANOSECONDS)) {
        throw new KvtierException(
            Code.UNAVAILABLE,
            "calls of session %s are still under way; ask again".formatted(sessionId));
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new KvtierException(Code.UNAVAILABLE, "interrupted while calls are under way", e);
    }
    try {
      if (closed) {
        throw Sessions.unknown(sessionId);
      }
      if (to <= epoch) {
        throw precondition(
            "epoch %d of session %s is not newer than that which it is in, %d",
            to, sessionId, epoch);
      }
      epoch = to;
      return then.get();
    } finally {
      usedNs = System.nanoTime();
      lock.writeLock().unlock();
    }
  }

  /**
   * Closes once no call is under way.
   *
   * @param end runs each time; told whether the session was open until now
   */
  void close(Consumer<Boolean> end) {
    lock.writeLock().lock();
    try {
      boolean wasOpen = !closed;
      closed = true;
      end.accept(wasOpen);
    } finally {
      lock.writeLock().unlock();
    }
  }
}
