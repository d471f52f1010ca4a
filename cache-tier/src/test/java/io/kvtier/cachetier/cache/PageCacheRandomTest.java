package io.kvtier.cachetier.cache;

import static io.kvtier.cachetier.TestPages.bytes;
import static io.kvtier.cachetier.TestPages.key;
import static org.assertj.core.api.Assertions.assertThat;

import io.kvtier.KvtierException;
import io.kvtier.cachetier.chronicle.ChroniclePageStore;
import io.kvtier.cachetier.memory.MemoryPageStore;
import io.kvtier.page.PageKey;
import java.time.Duration;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.SplittableRandom;
import java.util.concurrent.atomic.AtomicLong;
import org.agrona.concurrent.UnsafeBuffer;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Random calls of one thread and of many: what is promised holds after each. */
final class PageCacheRandomTest extends PageCacheFixture {
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
          long number = owners.getAndIncrement();
          boolean leases = number < 3;
          String owner = "owner-" + number;
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
}
