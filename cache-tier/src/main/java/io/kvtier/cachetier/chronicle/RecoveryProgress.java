package io.kvtier.cachetier.chronicle;

import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import java.util.logging.Level;
import java.util.logging.Logger;

/** Tells how far opening a store is: a line in the log at most every two seconds. */
final class RecoveryProgress {
  private static final Logger LOG = Logger.getLogger(RecoveryProgress.class.getName());
  private static final long PERIOD_NS = TimeUnit.SECONDS.toNanos(2);
  private static final int MIB_SHIFT = 20;

  private final AtomicLong bytes = new AtomicLong();
  private final AtomicLong toldNs = new AtomicLong(System.nanoTime());

  /** From any thread. */
  void verified(int length) {
    long sum = bytes.addAndGet(length);
    long told = toldNs.get();
    long now = System.nanoTime();
    if (now - told >= PERIOD_NS && toldNs.compareAndSet(told, now)) {
      LOG.log(Level.INFO, "the last stop was not clean: {0} MiB verified", sum >> MIB_SHIFT);
    }
  }

  long bytes() {
    return bytes.get();
  }
}
