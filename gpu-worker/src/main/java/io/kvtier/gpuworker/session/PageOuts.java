package io.kvtier.gpuworker.session;

import java.util.ArrayDeque;
import java.util.Queue;
import java.util.concurrent.Executor;
import java.util.function.Consumer;
import java.util.logging.Level;
import java.util.logging.Logger;
import org.jspecify.annotations.Nullable;

/**
 * Has the pages that a session's steps left encoded behind their backs: one layer after another, so
 * that a session takes one thread however many layers fill a page with the same token, and a page a
 * layer at most waits. A layer that somebody else is in needs nothing: who enters encodes what is
 * left. Safe for any number of threads.
 */
final class PageOuts {
  private static final Logger LOG = Logger.getLogger(PageOuts.class.getName());

  private final Executor executor;
  private final Consumer<Runnable> whileOpen;
  private final Queue<SessionLayer> waiting = new ArrayDeque<>();
  private boolean draining;

  /**
   * Nothing waits.
   *
   * @param executor does the work
   * @param whileOpen runs something, or not if the session is closed or about to be
   */
  PageOuts(Executor executor, Consumer<Runnable> whileOpen) {
    this.executor = executor;
    this.whileOpen = whileOpen;
  }

  /** Takes a layer that a page was left with, once its step is out of it. */
  void add(SessionLayer layer) {
    synchronized (this) {
      waiting.add(layer);
      if (draining) {
        return;
      }
      draining = true;
    }
    executor.execute(this::drain);
  }

  private void drain() {
    for (SessionLayer layer = next(); layer != null; layer = next()) {
      SessionLayer target = layer;
      whileOpen.accept(() -> encode(target));
    }
  }

  private synchronized @Nullable SessionLayer next() {
    SessionLayer layer = waiting.poll();
    draining = layer != null;
    return layer;
  }

  private static void encode(SessionLayer layer) {
    try {
      if (layer.tryEnter()) {
        layer.leave();
      }
    } catch (RuntimeException e) {
      LOG.log(Level.WARNING, "a page is left to the layer's next call, which tells of it", e);
    }
  }
}
