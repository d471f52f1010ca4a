package io.kvtier.client;

import io.kvtier.page.PageKey;
import io.kvtier.v1.TouchRequest;
import java.util.LinkedHashSet;
import java.util.Set;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReferenceArray;
import java.util.concurrent.atomic.LongAdder;
import java.util.function.Consumer;

/**
 * Tells a tier now and then of what was read in its files without its doing. Of the pages read most
 * since the last time the latest are named, each once, since the tier's order asks no more; those
 * before them are counted. Noting a read waits for nobody; safe for any number of threads.
 */
final class ReadReports implements AutoCloseable {
  /** Most keys of a report, a power of two. */
  static final int KEYS_MAX = 1024;

  private static final long PERIOD_MS = 250;

  private final AtomicReferenceArray<PageKey> latest = new AtomicReferenceArray<>(KEYS_MAX);
  private final AtomicInteger noted = new AtomicInteger();
  private final LongAdder reads = new LongAdder();
  private final LongAdder bytes = new LongAdder();
  private final AtomicBoolean telling = new AtomicBoolean();
  private final Consumer<TouchRequest> tier;
  private final Future<?> ticking;

  /**
   * Begins to tell.
   *
   * @param tier is told, on a thread of its own; whatever it throws is its own affair
   */
  ReadReports(Consumer<TouchRequest> tier) {
    this.tier = tier;
    this.ticking =
        DirectPages.Timer.THREAD.scheduleWithFixedDelay(
            this::tick, PERIOD_MS, PERIOD_MS, TimeUnit.MILLISECONDS);
  }

  /** Notes a read. */
  void read(PageKey key, int length) {
    reads.increment();
    bytes.add(length);
    latest.lazySet(noted.getAndIncrement() & KEYS_MAX - 1, key);
  }

  /** A report under way is not overtaken: what is read meanwhile is in the next. */
  private void tick() {
    if (reads.sum() == 0 || !telling.compareAndSet(false, true)) {
      return;
    }
    Thread.ofVirtual()
        .name("kvtier-touch")
        .start(() -> {
          try {
            tier.accept(take());
          } finally {
            telling.set(false);
          }
        });
  }

  /** What has been noted since the last time. */
  TouchRequest take() {
    Set<PageKey> keys = new LinkedHashSet<>();
    int end = noted.get();
    for (int i = 0; i < KEYS_MAX; i++) {
      PageKey key = latest.getAndSet(end + i & KEYS_MAX - 1, null);
      if (key != null) {
        // The latest last.
        keys.remove(key);
        keys.add(key);
      }
    }
    TouchRequest.Builder request = TouchRequest.newBuilder();
    keys.forEach(key -> request.addKeys(key.toByteString()));
    return request.setReads(reads.sumThenReset()).setBytes(bytes.sumThenReset()).build();
  }

  /** What has not been told yet never will be. Idempotent. */
  @Override
  public void close() {
    ticking.cancel(false);
  }
}
