package io.kvtier.deploy.engine;

import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * Runs the pieces of one loop on a fixed number of threads, the caller's among them. Pieces are
 * handed out in order as threads come free, because those of a causal triangle differ in size. Used
 * by one caller at a time.
 */
final class WorkerPool implements AutoCloseable {
  /** One piece of a loop. */
  interface Piece {
    /** Runs piece {@code index} on thread {@code worker}, 0 to threads - 1. */
    void run(int index, int worker);
  }

  private final int threads;
  private final ExecutorService executor;

  WorkerPool(int threads) {
    this.threads = threads;
    this.executor =
        Executors.newFixedThreadPool(
            Math.max(1, threads - 1),
            Thread.ofPlatform().name("kvtier-engine-", 0).daemon(true).factory());
  }

  int threads() {
    return threads;
  }

  /**
   * Runs pieces 0 to {@code pieces - 1} and returns when all are done; the first failure is thrown.
   */
  void run(int pieces, Piece piece) {
    AtomicInteger next = new AtomicInteger();
    List<Future<?>> helpers = new ArrayList<>();
    for (int worker = 1; worker < Math.min(threads, pieces); worker++) {
      int id = worker;
      helpers.add(executor.submit(() -> drain(next, pieces, id, piece)));
    }
    try {
      drain(next, pieces, 0, piece);
    } finally {
      next.set(pieces);
      helpers.forEach(WorkerPool::join);
    }
  }

  private static void drain(AtomicInteger next, int pieces, int worker, Piece piece) {
    for (int index = next.getAndIncrement(); index < pieces; index = next.getAndIncrement()) {
      piece.run(index, worker);
    }
  }

  private static void join(Future<?> future) {
    boolean interrupted = false;
    try {
      while (true) {
        try {
          future.get();
          return;
        } catch (InterruptedException e) {
          // The pieces write into the caller's arrays: they must end before it goes on.
          interrupted = true;
        } catch (ExecutionException e) {
          throw new IllegalStateException("a piece of a parallel loop failed", e.getCause());
        }
      }
    } finally {
      if (interrupted) {
        Thread.currentThread().interrupt();
      }
    }
  }

  @Override
  public void close() {
    executor.shutdownNow();
  }
}
