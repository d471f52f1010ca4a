package io.kvtier.cachetier.cache;

import static io.kvtier.cachetier.TestPages.bytes;
import static io.kvtier.cachetier.TestPages.key;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.cachetier.PageStore;
import io.kvtier.cachetier.PutResult;
import io.kvtier.cachetier.chronicle.ChroniclePageStore;
import io.kvtier.cachetier.lease.LeaseLimits;
import io.kvtier.cachetier.lease.LeaseTable;
import io.kvtier.cachetier.memory.MemoryPageStore;
import io.kvtier.cachetier.watch.EventLog;
import io.kvtier.cachetier.watch.PageEvent;
import io.kvtier.page.PageKey;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.SplittableRandom;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicLong;
import java.util.stream.IntStream;
import org.agrona.concurrent.UnsafeBuffer;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** What goes when room is needed, what never goes, and what is told of it. */
@Timeout(value = 120, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
final class PageCacheTest {
  private static final int LENGTH = 1024;
  private static final long SECOND = 1_000_000_000;
  private static final int EVENTS_MAX = 1 << 18;

  @TempDir Path home;

  private final AtomicLong nowNs = new AtomicLong(-5 * SECOND);
  private final List<String> removals = new ArrayList<>();
  private PageCache cache = cache(new MemoryPageStore(10 * LENGTH), CacheLimits.none());

  @AfterEach
  void close() {
    cache.close();
  }

  private PageCache cache(PageStore store, CacheLimits limits) {
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

  private void open(int pages, CacheLimits limits) {
    cache.close();
    cache = cache(new MemoryPageStore((long) pages * LENGTH), limits);
  }

  private PutResult put(String tenant, int index) {
    return cache.put(tenant, key(index), new UnsafeBuffer(bytes(index, LENGTH)), 0, LENGTH);
  }

  private void put(int... indices) {
    for (int index : indices) {
      assertThat(put(CacheLimits.DEFAULT_TENANT, index)).isEqualTo(PutResult.STORED);
    }
  }

  private void read(int index) {
    Integer length = cache.read(key(index), (page, at, found) -> found);
    assertThat(length).isEqualTo(LENGTH);
  }

  private static List<PageKey> keys(int... indices) {
    return IntStream.of(indices).mapToObj(index -> key(index)).toList();
  }

  private void lease(String owner, int seconds, int... indices) {
    cache.lease(owner, 0, 0, seconds * SECOND, keys(indices));
  }

  private void assertHolds(int... indices) {
    Set<PageKey> held = new HashSet<>();
    cache.keys().forEachRemaining(held::add);
    assertThat(held).isEqualTo(Set.copyOf(keys(indices)));
    assertThat(cache.pages()).isEqualTo(indices.length);
    assertThat(cache.bytesUsed()).isEqualTo((long) indices.length * LENGTH);
    assertThat(keys(indices)).allMatch(cache::contains);
  }

  private void assertFull(String tenant, int index, String message) {
    long events = cache.events().last();
    assertThatThrownBy(() -> put(tenant, index))
        .isInstanceOfSatisfying(
            KvtierException.class, e -> assertThat(e.code()).isEqualTo(Code.EXHAUSTED))
        .hasMessageStartingWith(message);
    assertThat(cache.events().last()).as("nothing has changed").isEqualTo(events);
    assertThat(cache.contains(key(index))).isFalse();
  }

  @Test
  void theColdestGoesAndTheNewestStays() {
    put(0, 1, 2, 3, 4, 5, 6, 7, 8, 9);
    assertThat(removals).isEmpty();
    put(10, 11);
    assertHolds(2, 3, 4, 5, 6, 7, 8, 9, 10, 11);
    assertThat(cache.removed(Removal.SIZE)).isEqualTo(2);
  }

  @Test
  void whatIsReadStays() {
    put(0, 1, 2, 3, 4, 5, 6, 7, 8, 9);
    read(0);
    read(1);
    read(1);
    for (int i = 10; i < 60; i++) {
      put(i);
      assertThat(cache.contains(key(i))).as("the newest, unread as the rest").isTrue();
    }
    assertThat(cache.contains(key(0))).isTrue();
    assertThat(cache.contains(key(1))).isTrue();
    assertThat(cache.pages()).isEqualTo(10);
  }

  @Test
  void aRemovalIsToldWithItsReasonAndTheAgeOfThePage() {
    put(0, 1, 2, 3, 4, 5, 6, 7, 8);
    nowNs.addAndGet(3 * SECOND);
    put(9, 10);
    assertThat(cache.delete(key(5))).isTrue();
    assertThat(cache.deleteIf(key(9), (page, at, length) -> true)).isTrue();
    assertThat(removals).containsExactly("SIZE 3 s 1024", "ASKED 3 s 1024", "CORRUPT 0 s 1024");
  }

  @Test
  void aPageThatExistsIsNoReasonToEvict() {
    put(0, 1, 2, 3, 4, 5, 6, 7, 8, 9);
    assertThat(put(CacheLimits.DEFAULT_TENANT, 0)).isEqualTo(PutResult.EXISTED);
    assertHolds(0, 1, 2, 3, 4, 5, 6, 7, 8, 9);
  }

  @Test
  void pagesOfOtherLengthsEvictAsManyAsTheyNeed() {
    put(0, 1, 2, 3, 4, 5, 6, 7, 8, 9);
    cache.put(key(20), new UnsafeBuffer(bytes(20, 3 * LENGTH - 64)), 0, 3 * LENGTH - 64);
    assertThat(cache.pages()).isEqualTo(8);
    assertThat(cache.bytesUsed()).isEqualTo(10 * LENGTH - 64);
    assertThatThrownBy(
            () -> cache.put(key(21), new UnsafeBuffer(new byte[11 * LENGTH]), 0, 11 * LENGTH))
        .isInstanceOf(KvtierException.class)
        .hasMessageStartingWith("page of 11264 bytes never fits: the tier takes 10240");
    assertThat(cache.pages()).as("and nothing was evicted for it").isEqualTo(8);
  }

  @Test
  void theLeasedAreNeverEvictedAndAFullTierSaysSo() {
    put(0, 1, 2, 3, 4, 5, 6, 7, 8, 9);
    assertThat(cache.lease("a", 0, 0, 60 * SECOND, keys(0, 1, 77)).stored())
        .containsExactly(true, true, false);
    put(10, 11);
    assertHolds(0, 1, 4, 5, 6, 7, 8, 9, 10, 11);
    lease("b", 60, 4, 5, 6, 7, 8, 9, 10, 11);
    assertFull(
        "default",
        12,
        "tier is full: 10240 of 10240 bytes; all of them are leased, until leases are released or"
            + " end: a page of 1024 does not fit");
    cache.release("b", 0, keys(7));
    put(12);
    assertHolds(0, 1, 4, 5, 6, 8, 9, 10, 11, 12);
  }

  @Test
  void aTierThatEvictsNothingRefusesWhatDoesNotFit() {
    open(2, new CacheLimits(Optional.empty(), Long.MAX_VALUE, Map.of(), false));
    put(0, 1);
    assertFull(
        "default",
        2,
        "tier is full: 2048 of 2048 bytes; nothing is evicted, delete pages or raise the bound: a"
            + " page of 1024 does not fit");
    cache.delete(key(0));
    put(2);
    assertHolds(1, 2);
  }

  @Test
  void aKeyCanBeLeasedBeforeItsPageIsPut() {
    lease("a", 60, 0);
    put(0, 1, 2, 3, 4, 5, 6, 7, 8, 9);
    put(10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20);
    assertThat(cache.contains(key(0))).isTrue();
    cache.release("a", 0, List.of());
    put(21, 22, 23, 24, 25, 26, 27, 28, 29, 30);
    assertThat(cache.contains(key(0))).isFalse();
  }

  @Test
  void anEndedLeaseMakesRoomWithoutHelp() {
    put(0, 1, 2, 3, 4, 5, 6, 7, 8, 9);
    lease("a", 5, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9);
    assertFull("default", 10, "tier is full");
    nowNs.addAndGet(5 * SECOND);
    put(10);
    assertThat(cache.leakedLeases(0)).isZero();
    assertThat(cache.pages()).isEqualTo(10);
  }

  @Test
  void aLeasedPageIsNotDeletedButACorruptOneIs() {
    put(0, 1);
    lease("a", 60, 0, 1);
    assertThat(cache.delete(key(0))).isFalse();
    assertHolds(0, 1);
    assertThat(cache.deleteIf(key(0), (page, at, length) -> true)).isTrue();
    cache.release("a", 0, keys(1));
    assertThat(cache.delete(key(1))).isTrue();
    assertHolds();
  }

  @Test
  void pagesGoWhenTheirTimeIsOverButNotWhileTheyAreLeased() {
    open(10, new CacheLimits(Optional.of(Duration.ofSeconds(10)), Long.MAX_VALUE, Map.of()));
    put(0, 1);
    lease("a", 60, 1);
    nowNs.addAndGet(6 * SECOND);
    put(2);
    read(0);
    nowNs.addAndGet(4 * SECOND - 1);
    cache.expire();
    assertHolds(0, 1, 2);
    nowNs.addAndGet(1);
    cache.expire();
    assertHolds(1, 2);
    nowNs.addAndGet(6 * SECOND);
    cache.expire();
    assertHolds(1);
    cache.release("a", 0, List.of());
    cache.expire();
    assertHolds();
    assertThat(cache.removed(Removal.TTL)).isEqualTo(3);
  }

  private static CacheLimits quota(String tenant, int pages) {
    return new CacheLimits(
        Optional.empty(),
        Long.MAX_VALUE,
        Map.of(tenant, (long) PageStore.PAGE_BYTES_MAX + (long) pages * LENGTH));
  }

  /** A quota is at least the longest page, so pages of that length fill most of it. */
  private void putLong(String tenant, int index) {
    int length = PageStore.PAGE_BYTES_MAX;
    cache.put(tenant, key(index), new UnsafeBuffer(new byte[length]), 0, length);
  }

  @Test
  void aTenantsQuotaIsKeptFromItsOwnPages() {
    cache.close();
    cache = cache(new MemoryPageStore(4L * PageStore.PAGE_BYTES_MAX), quota("small", 2));
    put("other", 0);
    putLong("small", 100);
    put("small", 1);
    put("small", 2);
    assertThat(cache.bytesUsed("small")).isEqualTo(PageStore.PAGE_BYTES_MAX + 2 * LENGTH);
    read(0);
    put("small", 3);
    assertThat(cache.contains(key(100))).as("its own coldest").isFalse();
    assertThat(cache.removed(Removal.QUOTA)).isEqualTo(1);
    assertThat(cache.contains(key(0))).isTrue();
    cache.lease("a", 0, 0, SECOND, keys(1, 2, 3));
    putLong("other", 200);
    assertThatThrownBy(() -> putLong("small", 101))
        .isInstanceOf(KvtierException.class)
        .hasMessageStartingWith(
            "tenant 'small' is full: 3072 of 16779264 bytes; all of them are leased");
    assertThat(cache.bytesUsed("small")).isEqualTo(3 * LENGTH);
    assertThat(cache.contains(key(200))).isTrue();
  }

  @Test
  void theTenantWithTheMostGivesWay() {
    put("quiet", 0);
    put("quiet", 1);
    for (int i = 10; i < 100; i++) {
      put("loud", i);
    }
    assertThat(cache.contains(key(0))).isTrue();
    assertThat(cache.contains(key(1))).isTrue();
    assertThat(cache.bytesUsed("loud")).isEqualTo(8 * LENGTH);
    for (int i = 2; i < 10; i++) {
      put("quiet", i);
    }
    assertThat(cache.bytesUsed("quiet")).isEqualTo(5 * LENGTH);
    assertThat(cache.bytesUsed("loud")).isEqualTo(5 * LENGTH);
  }

  @Test
  void tenantsAreBounded() {
    assertThatThrownBy(() -> put("no/name", 0))
        .isInstanceOf(KvtierException.class)
        .hasMessageStartingWith("tenant is 'no/name'; it must have 1..64 characters");
    for (int i = 1; i < CacheLimits.TENANTS_MAX; i++) {
      put("tenant-" + i, i);
    }
    assertFull("one-more", 5000, "tier has had pages of 1024 tenants since its start");
    put("tenant-7", 5000);
  }

  @Test
  void aRestartFindsAllPagesAgainAndALowerBoundEvicts() {
    cache.close();
    cache = cache(ChroniclePageStore.open(home, 10 * LENGTH), CacheLimits.none());
    put("a", 0);
    put("b", 1);
    put(2, 3, 4, 5, 6, 7);
    cache.close();
    cache = cache(ChroniclePageStore.open(home, 10 * LENGTH), CacheLimits.none());
    assertHolds(0, 1, 2, 3, 4, 5, 6, 7);
    assertThat(cache.bytesUsed(CacheLimits.DEFAULT_TENANT)).isEqualTo(8 * LENGTH);
    assertThat(cache.evictable()).isEqualTo(8);
    lease("a", 60, 3);
    put(10, 11, 12, 13);
    assertThat(cache.pages()).isEqualTo(10);
    assertThat(cache.contains(key(3))).isTrue();
    cache.close();
    cache = cache(ChroniclePageStore.open(home, 4 * LENGTH), CacheLimits.none());
    assertThat(cache.pages()).isEqualTo(4);
    assertThat(cache.bytesUsed()).isEqualTo(4 * LENGTH);
    assertThat(cache.evictable()).isEqualTo(4);
    put(20);
    assertThat(cache.pages()).isEqualTo(4);
    assertThat(cache.contains(key(20))).isTrue();
  }

  /** What the events say is there, checking that each is possible after those before. */
  private static Set<PageKey> replayed(EventLog log) {
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

  private Set<PageKey> held() {
    Set<PageKey> held = new HashSet<>();
    cache.keys().forEachRemaining(held::add);
    return held;
  }

  private void assertConsistent(int tenants) {
    Set<PageKey> held = held();
    assertThat(held).isEqualTo(replayed(cache.events()));
    assertThat(held).allMatch(cache::contains);
    assertThat(cache.pages()).isEqualTo(held.size());
    assertThat(cache.evictable())
        .isEqualTo(held.stream().filter(key -> !cache.leases().isPinned(key)).count());
    long used = cache.bytesUsed(CacheLimits.DEFAULT_TENANT);
    for (int i = 0; i < tenants; i++) {
      used += cache.bytesUsed("t" + i);
    }
    assertThat(used).isEqualTo(cache.bytesUsed());
  }

  /** One thread, any calls; what is leased and what was promised is checked after each. */
  @Test
  void randomCallsKeepThePromises() {
    long seed = System.nanoTime();
    System.out.println("randomCallsKeepThePromises seed " + seed);
    SplittableRandom random = new SplittableRandom(seed);
    open(20, new CacheLimits(Optional.of(Duration.ofSeconds(50)), Long.MAX_VALUE, Map.of()));
    Map<PageKey, Integer> lengths = new HashMap<>();
    int refused = 0;
    for (int step = 0; step < 30_000; step++) {
      nowNs.addAndGet(random.nextLong(SECOND));
      PageKey key = key(random.nextInt(60));
      String owner = "owner-" + random.nextInt(3);
      Set<PageKey> before = held();
      switch (random.nextInt(12)) {
        case 0 -> cache.expire();
        case 1 -> cache.lease(owner, 0, 0, 1 + random.nextLong(40 * SECOND), List.of(key));
        case 2 -> cache.release(owner, 0, random.nextBoolean() ? List.of() : List.of(key));
        case 3 ->
            assertThat(cache.delete(key))
                .isEqualTo(before.contains(key) && !cache.leases().isPinned(key));
        case 4, 5, 6 ->
            assertThat(cache.read(key, (page, at, length) -> length) != null)
                .isEqualTo(before.contains(key));
        default -> {
          int length = lengths.computeIfAbsent(key, k -> 64 + random.nextInt(3 * LENGTH));
          try {
            cache.put("t" + random.nextInt(3), key, new UnsafeBuffer(new byte[length]), 0, length);
            assertThat(cache.contains(key)).isTrue();
          } catch (KvtierException e) {
            refused++;
            assertThat(e.getMessage()).startsWith("tier is full");
            assertThat(held()).allMatch(cache.leases()::isPinned);
          }
        }
      }
      assertThat(cache.bytesUsed()).isLessThanOrEqualTo(cache.bytesMax());
      assertThat(cache.leakedLeases(41 * SECOND)).isZero();
      assertThat(before.stream().filter(cache.leases()::isPinned)).allMatch(cache::contains);
      if (step % 100 == 0) {
        assertConsistent(3);
      }
    }
    System.out.println(
        refused
            + " puts refused, removed: "
            + cache.removed(Removal.SIZE)
            + " for size, "
            + cache.removed(Removal.TTL)
            + " for age");
    assertConsistent(3);
    nowNs.addAndGet(100 * SECOND);
    cache.expire();
    assertHolds();
  }

  /** Room for hardly more pages than there are threads: somebody is always about to make some. */
  @Test
  void withNothingLeasedNoPutIsRefusedHoweverSmallTheTier() throws Exception {
    int threads = 6;
    open(2, CacheLimits.none());
    long seed = System.nanoTime();
    System.out.println("withNothingLeasedNoPutIsRefusedHoweverSmallTheTier seed " + seed);
    inThreads(
        threads,
        seed,
        random -> {
          for (int i = 0; i < 5_000; i++) {
            put("t" + random.nextInt(3), random.nextInt(50));
            assertThat(cache.bytesUsed()).isLessThanOrEqualTo(2 * LENGTH);
          }
        });
    assertConsistent(3);
  }

  @Test
  void eventsOfManyThreadsAgreeWithWhatIsStored() throws Exception {
    open(16, CacheLimits.none());
    long seed = System.nanoTime();
    System.out.println("eventsOfManyThreadsAgreeWithWhatIsStored seed " + seed);
    inThreads(
        6,
        seed,
        random -> {
          for (int i = 0; i < 8_000; i++) {
            int index = random.nextInt(40);
            String owner = "owner-" + random.nextInt(4);
            switch (random.nextInt(8)) {
              case 0 -> cache.delete(key(index));
              case 1 -> cache.lease(owner, 0, 0, 1 + random.nextLong(SECOND), keys(index));
              case 2, 3 -> cache.release(owner, 0, List.of());
              case 4 -> {
                nowNs.addAndGet(random.nextLong(SECOND / 4));
                cache.expire();
              }
              default -> put("t" + random.nextInt(3), index);
            }
            assertThat(cache.bytesUsed()).isLessThanOrEqualTo(16 * LENGTH);
          }
        });
    assertThat(cache.removed(Removal.SIZE)).isPositive();
    assertThat(cache.removed(Removal.ASKED)).isPositive();
    assertConsistent(3);
    nowNs.addAndGet(2 * SECOND);
    cache.expire();
    assertThat(cache.evictable()).isEqualTo(cache.pages());
    assertThat(cache.leases().keysPinned()).isZero();
  }

  /** Also a page that another thread has just chosen to evict. */
  @Test
  void whatALeaseFindsStaysHoweverManyEvict() throws Exception {
    open(8, CacheLimits.none());
    long seed = System.nanoTime();
    System.out.println("whatALeaseFindsStaysHoweverManyEvict seed " + seed);
    AtomicLong found = new AtomicLong();
    AtomicLong owners = new AtomicLong();
    inThreads(
        6,
        seed,
        random -> {
          boolean leases = owners.getAndIncrement() < 3;
          String owner = "owner-" + owners.get();
          for (int i = 0; i < 30_000; i++) {
            int index = random.nextInt(12);
            if (!leases) {
              put("t" + random.nextInt(2), index);
            } else if (cache.lease(owner, 0, 0, SECOND, keys(index)).stored()[0]) {
              found.incrementAndGet();
              assertThat(cache.contains(key(index))).isTrue();
              assertThat(cache.delete(key(index))).isFalse();
              assertThat(cache.contains(key(index))).isTrue();
              cache.release(owner, 0, List.of());
            } else {
              cache.release(owner, 0, keys(index));
            }
          }
        });
    assertThat(found.get()).isGreaterThan(1000);
    assertConsistent(2);
  }

  @ParameterizedTest
  @ValueSource(booleans = {true, false})
  void readersSeeWholePagesWhilePagesAreEvicted(boolean memory) throws Exception {
    cache.close();
    long bytesMax = 12L * LENGTH;
    cache =
        cache(
            memory ? new MemoryPageStore(bytesMax) : ChroniclePageStore.open(home, bytesMax),
            CacheLimits.none());
    long seed = System.nanoTime();
    System.out.println("readersSeeWholePagesWhilePagesAreEvicted seed " + seed);
    AtomicLong hits = new AtomicLong();
    inThreads(
        6,
        seed,
        random -> {
          for (int i = 0; i < 10_000; i++) {
            int index = random.nextInt(24);
            if (random.nextInt(3) == 0) {
              put("t" + random.nextInt(2), index);
              continue;
            }
            byte[] expected = bytes(index, LENGTH);
            Boolean whole =
                cache.read(
                    key(index),
                    (page, at, length) -> {
                      byte[] seen = new byte[length];
                      page.getBytes(at, seen);
                      return Arrays.equals(seen, expected);
                    });
            assertThat(whole).isNotEqualTo(false);
            hits.addAndGet(whole == null ? 0 : 1);
          }
        });
    assertThat(hits.get()).isPositive();
    assertThat(cache.removed(Removal.SIZE)).isGreaterThan(1000);
    assertConsistent(2);
  }

  private interface Work {
    void run(SplittableRandom random);
  }

  private static void inThreads(int threads, long seed, Work work) throws Exception {
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
