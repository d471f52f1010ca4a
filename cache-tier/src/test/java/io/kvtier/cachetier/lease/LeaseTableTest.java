package io.kvtier.cachetier.lease;

import static io.kvtier.cachetier.TestPages.key;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.page.PageKey;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.SplittableRandom;
import java.util.concurrent.TimeUnit;
import java.util.stream.IntStream;
import org.assertj.core.api.ThrowableAssert.ThrowingCallable;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Leases by later and later times. */
final class LeaseTableTest {
  private static final LeaseLimits LIMITS = new LeaseLimits(3, 5, 8, TimeUnit.HOURS.toNanos(1));

  private final LeaseTable leases = new LeaseTable(LIMITS, 100);

  private static List<PageKey> keys(int... indices) {
    return IntStream.of(indices).mapToObj(index -> key(index)).toList();
  }

  private static void assertRefused(Code code, String message, ThrowingCallable call) {
    assertThatThrownBy(call)
        .isInstanceOfSatisfying(KvtierException.class, e -> assertThat(e.code()).isEqualTo(code))
        .hasMessageContaining(message);
  }

  private void assertPins(int... indices) {
    assertThat(leases.keysPinned()).isEqualTo(indices.length);
    assertThat(keys(indices)).allMatch(leases::isPinned);
  }

  @Test
  void aLeasePinsUntilItsDeadlineAndNotLonger() {
    LeaseTable.Grant grant = leases.acquire("a", 1, 0, 50, keys(1, 2, 2), 1000);
    assertThat(grant).isEqualTo(new LeaseTable.Grant(100, 1050, List.of()));
    assertThat(leases.expire(1049)).isEmpty();
    assertPins(1, 2);
    assertThat(leases.expire(1050)).containsExactlyInAnyOrderElementsOf(keys(1, 2));
    assertPins();
    assertThat(leases.leases()).isZero();
    assertThat(leases.expired()).isEqualTo(1);
  }

  @Test
  void renewalsAddKeysAndNeverShorten() {
    leases.acquire("a", 1, 0, 50, keys(1), 1000);
    assertThat(leases.acquire("a", 1, 100, 10, keys(2), 1001).deadlineNs()).isEqualTo(1050);
    assertThat(leases.acquire("a", 1, 100, 50, List.of(), 1040).deadlineNs()).isEqualTo(1090);
    assertThat(leases.expire(1089)).isEmpty();
    assertPins(1, 2);
    assertThat(leases.expire(1090)).hasSize(2);
  }

  @Test
  void anOwnerLearnsThatItsLeaseHasEnded() {
    leases.acquire("a", 1, 0, 50, keys(1), 1000);
    assertRefused(
        Code.NOT_FOUND,
        "lease 100 of owner 'a' has ended",
        () -> leases.acquire("a", 1, 100, 50, keys(2), 1050));
    LeaseTable.Grant again = leases.acquire("a", 1, 0, 50, keys(2), 1050);
    assertThat(again.id()).isEqualTo(101);
    assertPins(2);
  }

  @Test
  void aReleaseFencesAlsoWhenTheLeaseHasEnded() {
    leases.acquire("a", 4, 0, 50, keys(1), 1000);
    assertThat(leases.release("a", 5, List.of(), 1050)).isEqualTo(keys(1));
    assertRefused(
        Code.PRECONDITION,
        "epoch 4 of owner 'a' is stale: epoch 5 has taken over",
        () -> leases.acquire("a", 4, 0, 50, keys(1), 1060));
  }

  @Test
  void aKeyIsFreeWhenTheLastLeaseLetsItGo() {
    leases.acquire("a", 0, 0, 50, keys(1, 2), 1000);
    leases.acquire("b", 0, 0, 90, keys(2, 3), 1000);
    assertThat(leases.release("a", 0, keys(2, 7), 1001)).isEmpty();
    assertPins(1, 2, 3);
    assertThat(leases.release("b", 0, keys(2), 1001)).isEqualTo(keys(2));
    assertThat(leases.release("a", 0, List.of(), 1002)).isEqualTo(keys(1));
    assertPins(3);
    assertThat(leases.leases()).isEqualTo(1);
    assertThat(leases.release("a", 0, List.of(), 1003)).as("idempotent").isEmpty();
  }

  @Test
  void aHigherEpochTakesOverAndALowerOneIsRefusedForGood() {
    leases.acquire("a", 4, 0, 50, keys(1), 1000);
    LeaseTable.Grant taken = leases.acquire("a", 5, 0, 50, keys(2), 1010);
    assertThat(taken.id()).as("the same lease, with all its keys").isEqualTo(100);
    assertPins(1, 2);
    String stale = "epoch 4 of owner 'a' is stale: epoch 5 has taken over";
    assertRefused(Code.PRECONDITION, stale, () -> leases.acquire("a", 4, 0, 50, keys(3), 1011));
    assertRefused(Code.PRECONDITION, stale, () -> leases.release("a", 4, List.of(), 1011));
    assertPins(1, 2);
    leases.expire(2000);
    assertRefused(Code.PRECONDITION, stale, () -> leases.acquire("a", 4, 0, 50, keys(3), 2000));
    leases.acquire("b", 0, 0, 50, keys(3), 2000);
    assertPins(3);
  }

  @Test
  void aRefusedCallChangesNothing() {
    leases.acquire("a", 1, 0, 50, keys(1, 2, 3), 1000);
    assertRefused(
        Code.EXHAUSTED,
        "lease of owner 'a' has 3 keys and would get 3 more; at most 5",
        () -> leases.acquire("a", 2, 0, 99, keys(3, 4, 5, 6), 1001));
    leases.acquire("b", 1, 0, 50, keys(1, 2, 3), 1001);
    assertRefused(
        Code.EXHAUSTED,
        "leases have 6 keys and would get 3 more; the tier's bound is 8",
        () -> leases.acquire("c", 1, 0, 50, keys(7, 8, 9), 1002));
    leases.acquire("c", 1, 0, 50, keys(7, 8), 1002);
    assertRefused(
        Code.EXHAUSTED,
        "tier has 3 leases, which is its bound",
        () -> leases.acquire("d", 1, 0, 50, List.of(), 1003));
    assertPins(1, 2, 3, 7, 8);
    assertThat(leases.expire(1050)).as("no deadline has moved").isEmpty();
    assertThat(leases.acquire("a", 1, 0, 50, List.of(), 1050).id()).as("no epoch").isEqualTo(103);
  }

  @ParameterizedTest
  @ValueSource(longs = {Long.MIN_VALUE, -1, 0, 3_600_000_000_001L})
  void timesAreBounded(long ttlNs) {
    assertRefused(
        Code.INVALID,
        "lease ttl, ns is %d; it must be 1..3600000000000".formatted(ttlNs),
        () -> leases.acquire("a", 1, 0, ttlNs, keys(1), 0));
    assertPins();
  }

  @Test
  void ownersAndEpochsAreBounded() {
    assertRefused(
        Code.INVALID, "owner has 0 characters", () -> leases.acquire("", 1, 0, 9, keys(1), 0));
    assertRefused(
        Code.INVALID,
        "owner has 129 characters; it must have 1..128",
        () -> leases.acquire("x".repeat(129), 1, 0, 9, keys(1), 0));
    assertRefused(Code.INVALID, "epoch is -1", () -> leases.acquire("a", -1, 0, 9, keys(1), 0));
    assertPins();
  }

  /** Against a model that looks at every lease for every question. */
  @Test
  void randomCallsAgreeWithAModelAndLeakNothing() {
    long seed = System.nanoTime();
    System.out.println("randomCallsAgreeWithAModelAndLeakNothing seed " + seed);
    SplittableRandom random = new SplittableRandom(seed);
    LeaseTable table = new LeaseTable(new LeaseLimits(8, 20, 60, TimeUnit.HOURS.toNanos(1)), 1);
    Map<String, Set<PageKey>> held = new HashMap<>();
    Map<String, Long> deadlines = new HashMap<>();
    Map<String, Long> epochs = new HashMap<>();
    int refused = 0;
    long now = -1000;
    for (int step = 0; step < 50_000; step++) {
      now += random.nextInt(10);
      String owner = "owner-" + random.nextInt(10);
      long epoch = Math.max(0, epochs.getOrDefault(owner, 0L) + random.nextInt(4) - 1);
      List<PageKey> some = new ArrayList<>();
      for (int i = random.nextInt(8); i > 0; i--) {
        some.add(key(random.nextInt(40)));
      }
      long nowNs = now;
      Set<String> over = new HashSet<>(deadlines.keySet());
      over.removeIf(name -> deadlines.getOrDefault(name, 0L) > nowNs);
      try {
        switch (random.nextInt(3)) {
          case 0 -> table.expire(now);
          case 1 -> {
            table.release(owner, epoch, some, now);
            if (held.containsKey(owner) && !over.contains(owner)) {
              epochs.put(owner, epoch);
              if (some.isEmpty()) {
                over.add(owner);
              } else {
                held.getOrDefault(owner, Set.of()).removeAll(some);
              }
            }
          }
          default -> {
            long ttl = 1L + random.nextInt(100);
            table.acquire(owner, epoch, 0, ttl, some, now);
            epochs.put(owner, epoch);
            if (over.remove(owner)) {
              held.remove(owner);
              deadlines.remove(owner);
            }
            held.computeIfAbsent(owner, o -> new HashSet<>()).addAll(some);
            deadlines.merge(owner, now + ttl, Math::max);
          }
        }
        held.keySet().removeAll(over);
        deadlines.keySet().removeAll(over);
      } catch (KvtierException e) {
        refused++;
        assertThat(e.code()).isIn(Code.PRECONDITION, Code.EXHAUSTED);
        table.expire(now);
        held.keySet().removeAll(over);
        deadlines.keySet().removeAll(over);
      }
      assertThat(table.leaked(now)).isZero();
      assertThat(table.leases()).isEqualTo(held.size());
      assertPinned(table, held.values());
    }
    assertThat(refused).isPositive();
    assertThat(table.expired()).isPositive();
    table.expire(now + 1000);
    assertThat(table.keysPinned()).isZero();
  }

  private static void assertPinned(LeaseTable table, Collection<Set<PageKey>> held) {
    Set<PageKey> all = new HashSet<>();
    held.forEach(all::addAll);
    assertThat(table.keysPinned()).isEqualTo(all.size());
    assertThat(all).allMatch(table::isPinned);
  }
}
