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

  /**
   * Looks at what is waited for before a thread sleeps, some twenty microseconds: the calls of one
   * pass follow each other closely, and to wake a thread takes longer than some of them.
   */
  private static final int LOOKS = 1000;

  /**
   * Of so many looks one lets others have the processor: what brings rows meanwhile, in this
   * process or another, would wait out the rest of a time slice for a thread that only waits.
   */
  private static final int LOOKS_PER_YIELD = 32;

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
            new Calls(),
            Thread.ofPlatform().daemon().name("kvtier-attention-", 0).factory(),
            // More calls than helpers can hear of: the callers do their work themselves.
            new ThreadPoolExecutor.DiscardPolicy());
    helpers.allowCoreThreadTimeOut(true);
  }

  /** The calls that wait for helpers; who finds none looks for a while before he sleeps. */
  private static final class Calls extends ArrayBlockingQueue<Runnable> {
    private static final long serialVersionUID = 1;

    private final AtomicInteger offered = new AtomicInteger();

    Calls() {
      super(WAITING_MAX);
    }

    @Override
    public boolean offer(Runnable call) {
      boolean room = super.offer(call);
      offered.incrementAndGet();
      return room;
    }

    @Override
    public @Nullable Runnable poll(long timeout, TimeUnit unit) throws InterruptedException {
      int before = offered.get();
      Runnable call = poll();
      for (int look = 1; call == null && look <= LOOKS; look++) {
        pause(look);
        if (offered.get() != before) {
          before = offered.get();
          call = poll();
        }
      }
      return call == null ? super.poll(timeout, unit) : call;
    }
  }

  @SuppressWarnings("ThreadPriorityCheck") // Nothing relies on it but how soon others have a turn.
  private static void pause(int look) {
    if (look % LOOKS_PER_YIELD == 0) {
      Thread.yield();
    } else {
      Thread.onSpinWait();
    }
  }

  /** What a caller does first that has nothing to do. */
  static void nothing() {}

  int threads() {
    return threads;
  }

  /** Runs tasks 0..count-1, each once; throws what the first that failed has thrown. */
  void run(int count, Task task) {
    run(count, task, Team::nothing, Math.min(threads, count) - 1);
  }

  /** The same, but that the caller does something else first. */
  void run(int count, Task task, Runnable first) {
    run(count, task, first, Math.min(threads - 1, count));
  }

  private void run(int count, Task task, Runnable first, int wanted) {
    if (wanted <= 0) {
      first.run();
      for (int i = 0; i < count; i++) {
        task.run(i);
      }
      return;
    }
    Call call = new Call(count, task);
    for (int i = 0; i < wanted; i++) {
      helpers.execute(call);
    }
    call.attempt(first);
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

    /** Does something of the caller's; if that fails, so does the call. */
    void attempt(Runnable first) {
      try {
        first.run();
      } catch (RuntimeException | Error e) {
        failure.compareAndSet(null, e);
      }
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
      for (int look = 1; look <= LOOKS && left.getCount() > 0; look++) {
        pause(look);
      }
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
