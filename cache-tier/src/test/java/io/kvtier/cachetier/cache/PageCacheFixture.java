package io.kvtier.cachetier.cache;

import static io.kvtier.cachetier.TestPages.bytes;
import static io.kvtier.cachetier.TestPages.key;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.TenantName;
import io.kvtier.cachetier.PageStore;
import io.kvtier.cachetier.PutResult;
import io.kvtier.cachetier.lease.LeaseLimits;
import io.kvtier.cachetier.lease.LeaseTable;
import io.kvtier.cachetier.memory.MemoryPageStore;
import io.kvtier.cachetier.watch.EventLog;
import io.kvtier.cachetier.watch.PageEvent;
import io.kvtier.page.PageKey;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.SplittableRandom;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicLong;
import java.util.stream.IntStream;
import org.agrona.concurrent.UnsafeBuffer;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** A cache over a store of small pages, its clock in the test's hands, and looks at it. */
@Timeout(value = 120, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
abstract class PageCacheFixture {
  static final int LENGTH = 1024;
  static final long SECOND = 1_000_000_000;
  static final int EVENTS_MAX = 1 << 18;

  @TempDir Path home;

  final AtomicLong nowNs = new AtomicLong(-5 * SECOND);
  final List<String> removals = new ArrayList<>();
  PageCache cache = cache(new MemoryPageStore(10 * LENGTH), CacheLimits.none());

  @AfterEach
  final void close() {
    cache.close();
  }

  PageCache cache(PageStore store, CacheLimits limits) {
    return new PageCache(
        store,
        limits,
        new LeaseTable(LeaseLimits.defaults(), 1),
        new EventLog(EVENTS_MAX, 9),
        (reason, ageNs, length) -> {
          synchronized (removals) {
            removals.add(reason + " " + ageNs / SECOND + " s " + length);
          }
        },
        nowNs::get);
  }

  void open(int pages, CacheLimits limits) {
    cache.close();
    cache = cache(new MemoryPageStore((long) pages * LENGTH), limits);
  }

  PutResult put(String tenant, int index) {
    return cache.put(tenant, key(index), new UnsafeBuffer(bytes(index, LENGTH)), 0, LENGTH);
  }

  void put(int... indices) {
    for (int index : indices) {
      assertThat(put(TenantName.DEFAULT, index)).isEqualTo(PutResult.STORED);
    }
  }

  void read(int index) {
    Integer length = cache.read(key(index), (page, at, found) -> found);
    assertThat(length).isEqualTo(LENGTH);
  }

  static List<PageKey> keys(int... indices) {
    return IntStream.of(indices).mapToObj(index -> key(index)).toList();
  }

  void lease(String owner, int seconds, int... indices) {
    cache.lease(owner, 0, 0, seconds * SECOND, keys(indices));
  }

  void assertHolds(int... indices) {
    Set<PageKey> held = new HashSet<>();
    cache.keys().forEachRemaining(held::add);
    assertThat(held).isEqualTo(Set.copyOf(keys(indices)));
    assertThat(cache.pages()).isEqualTo(indices.length);
    assertThat(cache.bytesUsed()).isEqualTo((long) indices.length * LENGTH);
    assertThat(keys(indices)).allMatch(cache::contains);
  }

  void assertFull(String tenant, int index, String message) {
    long events = cache.events().last();
    assertThatThrownBy(() -> put(tenant, index))
        .isInstanceOfSatisfying(
            KvtierException.class, e -> assertThat(e.code()).isEqualTo(Code.EXHAUSTED))
        .hasMessageStartingWith(message);
    assertThat(cache.events().last()).as("nothing has changed").isEqualTo(events);
    assertThat(cache.contains(key(index))).isFalse();
  }

  /** What the events say is there, checking that each is possible after those before. */
  static Set<PageKey> replayed(EventLog log) {
    Set<PageKey> there = new HashSet<>();
    long sequence = 0;
    for (PageEvent event : log.after(0, EVENTS_MAX)) {
      assertThat(event.sequence()).isEqualTo(++sequence);
      assertThat(event.stored() ? there.add(event.key()) : there.remove(event.key()))
          .as("%s", event)
          .isTrue();
    }
    return there;
  }

  Set<PageKey> held() {
    Set<PageKey> held = new HashSet<>();
    cache.keys().forEachRemaining(held::add);
    return held;
  }

  void assertConsistent(int tenants) {
    Set<PageKey> held = held();
    assertThat(held).isEqualTo(replayed(cache.events()));
    assertThat(held).allMatch(cache::contains);
    assertThat(cache.pages()).isEqualTo(held.size());
    assertThat(cache.evictable())
        .isEqualTo(held.stream().filter(key -> !cache.leases().isPinned(key)).count());
    long used = cache.bytesUsed(TenantName.DEFAULT);
    for (int i = 0; i < tenants; i++) {
      used += cache.bytesUsed("t" + i);
    }
    assertThat(used).isEqualTo(cache.bytesUsed());
  }

  interface Work {
    void run(SplittableRandom random);
  }

  static void inThreads(int threads, long seed, Work work) throws Exception {
    try (ExecutorService pool = Executors.newFixedThreadPool(threads)) {
      List<Future<?>> all = new ArrayList<>();
      for (int t = 0; t < threads; t++) {
        SplittableRandom random = new SplittableRandom(seed + t);
        all.add(pool.submit(() -> work.run(random)));
      }
      for (Future<?> one : all) {
        one.get();
      }
    }
  }
}
