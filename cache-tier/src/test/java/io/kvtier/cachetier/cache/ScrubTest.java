package io.kvtier.cachetier.cache;

import static io.kvtier.cachetier.TestPages.ROT4;
import static io.kvtier.cachetier.TestPages.key;
import static io.kvtier.cachetier.TestPages.page;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.kvtier.KvtierException;
import io.kvtier.cachetier.FlippingPageStore;
import io.kvtier.cachetier.lease.LeaseLimits;
import io.kvtier.cachetier.lease.LeaseTable;
import io.kvtier.cachetier.memory.MemoryPageStore;
import io.kvtier.cachetier.watch.EventLog;
import io.kvtier.page.PageKey;
import io.kvtier.page.Section;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.SplittableRandom;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Flaws that nobody reads are found, at a bounded rate. */
final class ScrubTest {
  private static final int LENGTH = ROT4.pageLength();
  private static final int PAGES = 100;
  private static final long SECOND = 1_000_000_000;

  private final FlippingPageStore store = new FlippingPageStore(new MemoryPageStore(1 << 24));
  private final PageCache cache =
      new PageCache(
          store,
          CacheLimits.none(),
          new LeaseTable(LeaseLimits.defaults(), 1),
          new EventLog(1 << 16, 1),
          (reason, ageNs, length) -> {},
          () -> 0);

  @AfterEach
  void close() {
    cache.close();
  }

  private static PageKey keyOf(int index) {
    return key(1, index, 0, ROT4);
  }

  private void fill() {
    for (int i = 0; i < PAGES; i++) {
      cache.put(keyOf(i), page(ROT4, 0, i), 0, LENGTH);
    }
  }

  @Test
  void everyFlawIsFoundAndNothingElseIsRemoved() {
    fill();
    long seed = System.nanoTime();
    System.out.println("everyFlawIsFoundAndNothingElseIsRemoved seed " + seed);
    SplittableRandom random = new SplittableRandom(seed);
    Set<PageKey> flawed = new HashSet<>();
    while (flawed.size() < 7) {
      PageKey key = keyOf(random.nextInt(PAGES));
      // Past the header; what pads the sections has no checksum, and codes have no padding.
      flawed.add(key);
      store.flip(key, ROT4.offset(1, Section.V_CODES) + random.nextInt(64));
    }
    cache.lease("a", 0, 0, SECOND, List.copyOf(flawed).subList(0, 3));
    Scrub scrub = new Scrub(cache, (long) PAGES * LENGTH, 0);
    scrub.step(SECOND);
    assertThat(scrub.flawed()).isEqualTo(7);
    assertThat(scrub.pages()).isEqualTo(PAGES);
    assertThat(scrub.bytes()).isEqualTo((long) PAGES * LENGTH);
    assertThat(cache.removed(Removal.CORRUPT)).isEqualTo(7);
    for (int i = 0; i < PAGES; i++) {
      assertThat(cache.contains(keyOf(i))).isNotEqualTo(flawed.contains(keyOf(i)));
    }
    scrub.step(3 * SECOND);
    assertThat(scrub.flawed()).isEqualTo(7);
    assertThat(scrub.rounds()).isEqualTo(2);
  }

  @Test
  void theRateIsKeptAndAPauseIsNotMadeUpFor() {
    fill();
    Scrub scrub = new Scrub(cache, 10L * LENGTH, 0);
    scrub.step(0);
    assertThat(scrub.pages()).isZero();
    for (int tenth = 1; tenth <= 20; tenth++) {
      scrub.step(tenth * SECOND / 10);
      assertThat(scrub.pages()).isBetween(tenth - 1L, tenth + 1L);
    }
    scrub.step(1000 * SECOND);
    assertThat(scrub.pages()).isBetween(29L, 31L);
    assertThat(cache.evictable()).isEqualTo(PAGES);
  }

  @Test
  void itGoesRoundAndStopsForNothing() {
    Scrub scrub = new Scrub(cache, 1L << 40, 0);
    scrub.step(SECOND);
    assertThat(scrub.rounds()).as("an empty tier").isZero();
    fill();
    scrub.step(2 * SECOND);
    assertThat(scrub.pages()).as("one pass a step at most").isEqualTo(PAGES);
    scrub.step(3 * SECOND);
    assertThat(scrub.pages()).isEqualTo(2 * PAGES);
    assertThat(scrub.rounds()).isEqualTo(2);
  }

  @ParameterizedTest
  @ValueSource(longs = {Long.MIN_VALUE, 0, (1L << 40) + 1})
  void theRateIsBounded(long rate) {
    assertThatThrownBy(() -> new Scrub(cache, rate, 0))
        .isInstanceOf(KvtierException.class)
        .hasMessageContaining("scrub bytes per second is %d; it must be 1..", rate);
  }
}
