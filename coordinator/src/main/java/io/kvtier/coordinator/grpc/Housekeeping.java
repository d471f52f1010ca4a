package io.kvtier.coordinator.grpc;

import io.kvtier.KvtierException;
import io.kvtier.coordinator.lead.Lead;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.logging.Level;
import java.util.logging.Logger;

/**
 * What the coordinator that leads does by itself, a few times a second: removes lapsed nodes, ends
 * sessions that nobody serves, keeps pins. Owns one daemon thread.
 */
public final class Housekeeping implements AutoCloseable {
  private static final Logger LOG = Logger.getLogger(Housekeeping.class.getName());
  private static final long ROUND_MS = Duration.ofMillis(250).toMillis();

  private final Lead lead;
  private final List<Runnable> tasks;
  private final CountDownLatch closing = new CountDownLatch(1);
  private final Thread thread;

  /**
   * Begins.
   *
   * @param name of the thread
   */
  public Housekeeping(Lead lead, String name, List<Runnable> tasks) {
    this.lead = lead;
    this.tasks = List.copyOf(tasks);
    this.thread = Thread.ofPlatform().daemon().name("kvtier-coordinator-" + name).start(this::keep);
  }

  private void keep() {
    try {
      while (!closing.await(ROUND_MS, TimeUnit.MILLISECONDS)) {
        if (lead.leadership().leads()) {
          tasks.forEach(this::run);
        }
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }

  private void run(Runnable task) {
    try {
      task.run();
    } catch (KvtierException e) {
      // Another one leads by now, or a majority is away: the next round sees.
      LOG.log(Level.FINE, "housekeeping is put off: {0}", e.getMessage());
    } catch (RuntimeException e) {
      LOG.log(Level.SEVERE, "a fault in housekeeping", e);
    }
  }

  @Override
  public void close() {
    closing.countDown();
    thread.interrupt();
    try {
      thread.join();
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }
}
