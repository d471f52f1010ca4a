package io.kvtier.rpc;

import com.google.errorprone.annotations.CanIgnoreReturnValue;
import java.util.ArrayDeque;
import java.util.Deque;

/**
 * What a service has built so far, to be closed in reverse order. Failures do not stop the rest;
 * they are kept as suppressed.
 */
public final class Closing implements AutoCloseable {
  private final Deque<AutoCloseable> parts = new ArrayDeque<>();

  /** Adds what was built last, and returns it. */
  @CanIgnoreReturnValue
  public synchronized <T extends AutoCloseable> T add(T part) {
    parts.push(part);
    return part;
  }

  /** Closes everything because the next part could not be built. */
  public void closeAfter(RuntimeException failure) {
    try {
      close();
    } catch (RuntimeException e) {
      failure.addSuppressed(e);
    }
  }

  /** Closes everything, last first; the first failure is thrown at the end. Idempotent. */
  @Override
  public synchronized void close() {
    RuntimeException failed = null;
    while (!parts.isEmpty()) {
      try {
        parts.pop().close();
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
        failed = keep(failed, new IllegalStateException("interrupted while closing", e));
      } catch (RuntimeException e) {
        failed = keep(failed, e);
      } catch (Exception e) {
        failed = keep(failed, new IllegalStateException("could not close: " + e, e));
      }
    }
    if (failed != null) {
      throw failed;
    }
  }

  private static RuntimeException keep(
      @org.jspecify.annotations.Nullable RuntimeException first, RuntimeException next) {
    if (first == null) {
      return next;
    }
    first.addSuppressed(next);
    return first;
  }
}
