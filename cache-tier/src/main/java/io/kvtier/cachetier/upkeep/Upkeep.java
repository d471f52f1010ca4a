package io.kvtier.cachetier.upkeep;

import io.kvtier.cachetier.cache.PageCache;
import io.kvtier.cachetier.cache.Scrub;
import java.util.Optional;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import java.util.logging.Level;
import java.util.logging.Logger;

/**
 * What a tier does by itself: ends leases and removes pages whose time is over, and scrubs. One
 * thread each, so that a long look at pages keeps no lease from ending. {@link #close} waits for
 * the step under way; call it before the cache is closed.
 */
public final class Upkeep implements AutoCloseable {
  /** Time between two looks at what is over. */
  public static final long EXPIRY_PERIOD_NS = TimeUnit.MILLISECONDS.toNanos(250);

  private static final long SCRUB_PERIOD_NS = TimeUnit.MILLISECONDS.toNanos(100);
  private static final Logger LOG = Logger.getLogger(Upkeep.class.getName());

  private final ScheduledExecutorService threads =
      Executors.newScheduledThreadPool(
          2, Thread.ofPlatform().name("kvtier-tier-upkeep-", 0).daemon().factory());
  private final Optional<Scrub> scrub;

  /**
   * Starts.
   *
   * @param scrubBytesPerSecond bytes to verify in a second; 0: none
   */
  public Upkeep(PageCache cache, long scrubBytesPerSecond) {
    every(EXPIRY_PERIOD_NS, cache::expire);
    if (scrubBytesPerSecond > 0) {
      Scrub pass = new Scrub(cache, scrubBytesPerSecond, System.nanoTime());
      every(SCRUB_PERIOD_NS, () -> pass.step(System.nanoTime()));
      scrub = Optional.of(pass);
    } else {
      scrub = Optional.empty();
    }
  }

  private void every(long periodNs, Runnable step) {
    var _ =
        threads.scheduleWithFixedDelay(
            () -> runLogged(step), periodNs, periodNs, TimeUnit.NANOSECONDS);
  }

  /** A step that throws would be the last of its kind. */
  private static void runLogged(Runnable step) {
    try {
      step.run();
    } catch (RuntimeException e) {
      LOG.log(Level.SEVERE, "fault in the tier's upkeep; it goes on", e);
    }
  }

  /** The scrub, unless there is none. */
  public Optional<Scrub> scrub() {
    return scrub;
  }

  @Override
  public void close() {
    threads.close();
  }
}
