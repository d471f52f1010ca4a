package io.kvtier.cachetier.cache;

import static io.kvtier.cachetier.TestPages.bytes;
import static io.kvtier.cachetier.TestPages.key;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.kvtier.KvtierException;
import io.kvtier.TenantName;
import io.kvtier.cachetier.PageStore;
import io.kvtier.cachetier.PutResult;
import io.kvtier.cachetier.chronicle.ChroniclePageStore;
import io.kvtier.cachetier.lease.LeaseLimits;
import io.kvtier.cachetier.lease.LeaseTable;
import io.kvtier.cachetier.memory.MemoryPageStore;
import io.kvtier.cachetier.watch.EventLog;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.agrona.concurrent.UnsafeBuffer;
import org.junit.jupiter.api.Test;

/** What goes when room is needed, what never goes, and what is told of it. */
final class PageCacheTest extends PageCacheFixture {
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
    assertThat(put(TenantName.DEFAULT, 0)).isEqualTo(PutResult.EXISTED);
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
  void aPageLeasedAfterItWasChosenToGoStays() {
    cache.close();
    List<Boolean> found = new ArrayList<>();
    cache =
        new PageCache(
            new MemoryPageStore(10 * LENGTH),
            CacheLimits.none(),
            new LeaseTable(LeaseLimits.defaults(), 1),
            new EventLog(EVENTS_MAX, 9),
            (reason, ageNs, length) -> {
              if (found.isEmpty()) {
                found.add(cache.lease("a", 0, 0, SECOND, keys(1)).stored()[0]);
              }
            },
            nowNs::get);
    put(0, 1, 2, 3, 4, 5, 6, 7, 8, 9);
    // Needs the room of two: the second is leased once the first has gone.
    cache.put(key(20), new UnsafeBuffer(new byte[2 * LENGTH]), 0, 2 * LENGTH);
    assertThat(found).containsExactly(true);
    assertThat(cache.contains(key(1))).isTrue();
    assertThat(cache.contains(key(2))).isFalse();
    assertThat(cache.pages()).isEqualTo(9);
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
        .hasMessageStartingWith("tenant is 'no/name'; it must be 1..64 characters");
    open(CacheLimits.TENANTS_MAX + 10, CacheLimits.none());
    for (int i = 1; i < CacheLimits.TENANTS_MAX; i++) {
      put("tenant-" + i, i);
    }
    assertFull("one-more", 5000, "tier has pages of 1024 tenants, which is its bound");
    put("tenant-7", 5000);
    assertThat(cache.delete(key(9))).isTrue();
    assertThat(put("one-more", 5001)).isEqualTo(PutResult.STORED);
  }

  @Test
  void tenantsThatHaveNoPagesAreNotCounted() {
    open(10, CacheLimits.keeping());
    put(0, 1, 2, 3, 4, 5, 6, 7, 8);
    for (int i = 0; i < 2 * CacheLimits.TENANTS_MAX; i++) {
      put("comes-and-goes-" + i, 9);
      assertThat(cache.delete(key(9))).isTrue();
    }
    put(9);
    for (int i = 0; i < 2 * CacheLimits.TENANTS_MAX; i++) {
      assertFull("refused-" + i, 10, "tier is full");
    }
  }

  @Test
  void aRefusedRenewalLetsGoWhatTheEndedLeaseHeld() {
    put(0, 1, 2);
    lease("a", 10, 0, 1);
    assertThat(cache.evictable()).isEqualTo(1);
    nowNs.addAndGet(11 * SECOND);
    assertThatThrownBy(() -> cache.lease("a", 9, 4711, SECOND, List.of()))
        .isInstanceOf(KvtierException.class)
        .hasMessageContaining("lease 4711 of owner 'a' has ended");
    assertThat(cache.evictable()).isEqualTo(3);
  }

  @Test
  void aLowerBoundTakesNothingFromACacheThatKeepsAll() {
    cache.close();
    cache = cache(ChroniclePageStore.open(home, 10 * LENGTH), CacheLimits.keeping());
    put(0, 1, 2, 3, 4, 5);
    cache.close();
    cache = cache(ChroniclePageStore.open(home, 4 * LENGTH), CacheLimits.keeping());
    assertHolds(0, 1, 2, 3, 4, 5);
    assertFull(TenantName.DEFAULT, 7, "tier is full: 6144 of 4096 bytes");
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
    assertThat(cache.bytesUsed(TenantName.DEFAULT)).isEqualTo(8 * LENGTH);
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
}
