package io.kvtier.gpuworker.cpu;

import java.util.concurrent.ArrayBlockingQueue;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ThreadPoolExecutor;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import org.jspecify.annotations.Nullable;

/**
 * A fixed number of threads that share the tasks of one call: the caller works too, and returns
 * when all are done. Which thread does a task is left to chance, so a task's result must depend on
 * its number alone. Any number of callers may come at once; those that find no free helper work
 * alone.
 */
final class Team implements AutoCloseable {
  private static final int WAITING_MAX = 1024;

  private final int threads;
  private final ThreadPoolExecutor helpers;

  /** One piece of a call. */
  interface Task {
    void run(int index);
  }

  /**
   * A team.
   *
   * @param threads that work on one call, the caller's included, 1 or more
   */
  Team(int threads) {
    this.threads = threads;
    this.helpers =
        new ThreadPoolExecutor(
            Math.max(1, threads - 1),
            Math.max(1, threads - 1),
            1,
            TimeUnit.MINUTES,
            new ArrayBlockingQueue<>(WAITING_MAX),
            Thread.ofPlatform().daemon().name("kvtier-attention-", 0).factory(),
            // More calls than helpers can hear of: the callers do their work themselves.
            new ThreadPoolExecutor.DiscardPolicy());
    helpers.allowCoreThreadTimeOut(true);
  }

  int threads() {
    return threads;
  }

  /** Runs tasks 0..count-1, each once; throws what the first that failed has thrown. */
  void run(int count, Task task) {
    int wanted = Math.min(threads, count) - 1;
    if (wanted <= 0) {
      for (int i = 0; i < count; i++) {
        task.run(i);
      }
      return;
    }
    Call call = new Call(count, task);
    for (int i = 0; i < wanted; i++) {
      helpers.execute(call);
    }
    call.run();
    call.await();
  }

  /** Hands out task numbers until there are no more. A helper that comes late finds none. */
  private static final class Call implements Runnable {
    private final int count;
    private final Task task;
    private final AtomicInteger next = new AtomicInteger();
    private final CountDownLatch left;
    private final AtomicReference<@Nullable Throwable> failure = new AtomicReference<>();

    Call(int count, Task task) {
      this.count = count;
      this.task = task;
      this.left = new CountDownLatch(count);
    }

    @Override
    public void run() {
      for (int i = next.getAndIncrement(); i < count; i = next.getAndIncrement()) {
        try {
          if (failure.get() == null) {
            task.run(i);
          }
        } catch (RuntimeException | Error e) {
          failure.compareAndSet(null, e);
        } finally {
          left.countDown();
        }
      }
    }

    /** Waits for the tasks that helpers have begun: they use the caller's memory. */
    void await() {
      boolean interrupted = false;
      while (true) {
        try {
          left.await();
          break;
        } catch (InterruptedException e) {
          interrupted = true;
        }
      }
      if (interrupted) {
        Thread.currentThread().interrupt();
      }
      Throwable failed = failure.get();
      if (failed instanceof Error error) {
        throw error;
      }
      if (failed instanceof RuntimeException e) {
        throw e;
      }
    }
  }

  /** Lets the helpers end; calls under way are finished by their callers. */
  @Override
  public void close() {
    helpers.shutdown();
  }
}
