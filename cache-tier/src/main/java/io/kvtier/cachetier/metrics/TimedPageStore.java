package io.kvtier.cachetier.metrics;

import io.kvtier.cachetier.ForwardingPageStore;
import io.kvtier.cachetier.PageReader;
import io.kvtier.cachetier.PageStore;
import io.kvtier.cachetier.PutResult;
import io.kvtier.page.PageKey;
import io.micrometer.core.instrument.MeterRegistry;
import io.micrometer.core.instrument.Timer;
import java.time.Duration;
import java.util.concurrent.TimeUnit;
import org.agrona.DirectBuffer;
import org.jspecify.annotations.Nullable;

/**
 * A store whose operations are timed: {@code kvtier.tier.store}, by operation. A read's time
 * includes what its reader does with the page. Owns the store.
 */
public final class TimedPageStore extends ForwardingPageStore {
  private static final Duration[] BUCKETS = {
    Duration.ofNanos(1_000),
    Duration.ofNanos(3_000),
    Duration.ofNanos(10_000),
    Duration.ofNanos(30_000),
    Duration.ofNanos(100_000),
    Duration.ofNanos(300_000),
    Duration.ofMillis(1),
    Duration.ofMillis(10),
    Duration.ofMillis(100)
  };

  private final Timer puts;
  private final Timer reads;
  private final Timer lookups;
  private final Timer removals;

  public TimedPageStore(PageStore store, MeterRegistry meters) {
    super(store);
    this.puts = timer(meters, "put");
    this.reads = timer(meters, "read");
    this.lookups = timer(meters, "contains");
    this.removals = timer(meters, "remove");
  }

  private static Timer timer(MeterRegistry meters, String operation) {
    return Timer.builder("kvtier.tier.store")
        .description("Time of the store's operations")
        .tag("operation", operation)
        .serviceLevelObjectives(BUCKETS)
        .register(meters);
  }

  private static void record(Timer timer, long begunNs) {
    timer.record(System.nanoTime() - begunNs, TimeUnit.NANOSECONDS);
  }

  @Override
  public PutResult put(PageKey key, DirectBuffer page, int offset, int length) {
    long begunNs = System.nanoTime();
    PutResult result = store.put(key, page, offset, length);
    record(puts, begunNs);
    return result;
  }

  @Override
  public <R> @Nullable R read(PageKey key, PageReader<R> reader) {
    long begunNs = System.nanoTime();
    R result = store.read(key, reader);
    record(reads, begunNs);
    return result;
  }

  @Override
  public boolean contains(PageKey key) {
    long begunNs = System.nanoTime();
    boolean there = store.contains(key);
    record(lookups, begunNs);
    return there;
  }

  @Override
  public boolean delete(PageKey key) {
    long begunNs = System.nanoTime();
    boolean deleted = store.delete(key);
    record(removals, begunNs);
    return deleted;
  }

  @Override
  public boolean deleteIf(PageKey key, PageReader<Boolean> condition) {
    long begunNs = System.nanoTime();
    boolean deleted = store.deleteIf(key, condition);
    record(removals, begunNs);
    return deleted;
  }
}
