package io.kvtier.gpuworker.session;

import io.kvtier.KvtierException;
import java.util.ArrayDeque;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Executor;
import java.util.concurrent.TimeUnit;
import java.util.logging.Level;
import java.util.logging.Logger;
import org.jspecify.annotations.Nullable;

/**
 * Sessions that have ended and whose pages the tier has not deleted, or let go: each is tried again
 * by itself, in turn, after a pause that doubles as long as none succeeds. What cannot be settled
 * in so many tries is left to the tier, which takes its room when it needs it. Safe for any number
 * of threads.
 */
final class Unsettled {
  private static final Logger LOG = Logger.getLogger(Unsettled.class.getName());

  /** Sessions that wait; those beyond are left to the tier at once. */
  private static final int SESSIONS_MAX = 1024;

  /** Of one session: some minutes where it waits alone. */
  private static final int TRIES_MAX = 32;

  private static final long PAUSE_NS_MIN = TimeUnit.MILLISECONDS.toNanos(250);
  private static final long PAUSE_NS_MAX = TimeUnit.SECONDS.toNanos(10);

  private record Left(WorkerSession session, int tries) {}

  private final Executor executor;
  private final ArrayDeque<Left> left = new ArrayDeque<>();
  private long pauseNs = PAUSE_NS_MIN;
  private boolean waits;
  private boolean closed;

  /** None; tries run on the executor, which must take tasks until {@link #close}. */
  Unsettled(Executor executor) {
    this.executor = executor;
  }

  /** Takes a session whose end the tier has refused. */
  void add(WorkerSession session, KvtierException refusal) {
    LOG.log(
        Level.WARNING,
        "pages of session {0} are not deleted from the tier yet: {1}",
        new Object[] {session.info().getSessionId(), refusal.getMessage()});
    keep(new Left(session, 1));
  }

  int size() {
    synchronized (this) {
      return left.size();
    }
  }

  private synchronized void keep(Left each) {
    if (closed) {
      return;
    }
    if (left.size() < SESSIONS_MAX && each.tries < TRIES_MAX) {
      left.add(each);
      waitForNext();
    } else {
      LOG.log(
          Level.WARNING,
          "pages of session {0} are left to the tier, after {1} tries",
          new Object[] {each.session.info().getSessionId(), each.tries});
    }
  }

  private synchronized void waitForNext() {
    if (!waits && !closed && !left.isEmpty()) {
      waits = true;
      CompletableFuture.delayedExecutor(pauseNs, TimeUnit.NANOSECONDS, executor)
          .execute(this::tryAgain);
    }
  }

  /** Tries each once, up to the first that fails again. */
  private void tryAgain() {
    Left next = next();
    boolean any = false;
    while (next != null && settled(next)) {
      any = true;
      next = next();
    }
    synchronized (this) {
      waits = false;
      pauseNs = any ? PAUSE_NS_MIN : Math.min(2 * pauseNs, PAUSE_NS_MAX);
      waitForNext();
    }
  }

  private synchronized @Nullable Left next() {
    return closed ? null : left.poll();
  }

  private boolean settled(Left each) {
    try {
      // Closed already: what it was closed for is tried again.
      each.session.close();
      return true;
    } catch (KvtierException e) {
      keep(new Left(each.session, each.tries + 1));
      return false;
    }
  }

  /** Starts no further try. */
  synchronized void close() {
    closed = true;
    left.clear();
  }
}
