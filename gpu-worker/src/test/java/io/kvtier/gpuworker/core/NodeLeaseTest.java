package io.kvtier.gpuworker.core;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.page.PageKey;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Set;
import org.junit.jupiter.api.Test;

class NodeLeaseTest {
  private static final PageKey A = new PageKey(1, 2, 3, 4);
  private static final PageKey B = new PageKey(1, 2, 3, 5);
  private static final PageKey C = new PageKey(1, 2, 3, 6);

  private final FakeTier tier = new FakeTier();
  private final NodeLease lease = new NodeLease(2);

  /** A tier's side of one lease. */
  private static final class FakeTier implements NodeLease.Tier {
    final Set<PageKey> pinned = new LinkedHashSet<>();
    long leaseId;
    boolean silent;
    int calls;

    @Override
    public long lease(long id, List<PageKey> keys) {
      answer();
      if (id != 0 && id != leaseId) {
        throw new KvtierException(Code.NOT_FOUND, "lease " + id + " has ended");
      }
      leaseId = Math.max(1, leaseId);
      pinned.addAll(keys);
      assertThat(keys.size()).isLessThanOrEqualTo(2);
      return leaseId;
    }

    @Override
    public void release(List<PageKey> keys) {
      answer();
      if (keys.isEmpty()) {
        pinned.clear();
        leaseId++;
      } else {
        pinned.removeAll(keys);
      }
    }

    @Override
    public void leasedAgain(int keys) {}

    void startAgain() {
      pinned.clear();
      leaseId += 7;
    }

    private void answer() {
      calls++;
      if (silent) {
        throw new KvtierException(Code.UNAVAILABLE, "the tier does not answer");
      }
    }
  }

  @Test
  void aSharedKeyIsPinnedUntilItsLastHoldEnds() {
    lease.hold(tier, List.of(A, B));
    lease.hold(tier, List.of(A, C));
    lease.letGo(tier, List.of(A, B));
    assertThat(tier.pinned).containsExactlyInAnyOrder(A, C);
    lease.letGo(tier, List.of(A, C));
    assertThat(tier.pinned).isEmpty();
    assertThat(lease.size()).isZero();
  }

  @Test
  void whatTheTierRefusesToPinIsNotHeld() {
    lease.pin(tier, List.of(A));
    tier.silent = true;
    assertThatThrownBy(() -> lease.hold(tier, List.of(B))).isInstanceOf(KvtierException.class);
    assertThat(lease.size()).isEqualTo(1);
  }

  @Test
  void aTierThatStartsAgainIsGivenAllKeysThatAreStillHeld() {
    lease.hold(tier, List.of(A, B));
    lease.pin(tier, List.of(C));
    tier.startAgain();
    lease.renew(tier);
    assertThat(tier.pinned).containsExactlyInAnyOrder(A, B, C);
  }

  @Test
  void whatATierCouldNotBeToldToLetGoItIsToldWithTheNextRenewal() {
    lease.pin(tier, List.of(A, B));
    lease.hold(tier, List.of(C));
    tier.silent = true;
    assertThatThrownBy(() -> lease.release(tier, List.of(A))).isInstanceOf(KvtierException.class);
    assertThatThrownBy(() -> lease.letGo(tier, List.of(C))).isInstanceOf(KvtierException.class);
    assertThatThrownBy(() -> lease.renew(tier)).isInstanceOf(KvtierException.class);
    tier.silent = false;
    lease.renew(tier);
    assertThat(tier.pinned).containsExactly(B);
    assertThat(lease.size()).isEqualTo(1);
  }

  @Test
  void whatWasLetGoIsNotLeasedAgainAtATierThatStartsAgain() {
    lease.pin(tier, List.of(A, B));
    tier.silent = true;
    assertThatThrownBy(() -> lease.release(tier, List.of(A))).isInstanceOf(KvtierException.class);
    tier.startAgain();
    tier.silent = false;
    lease.renew(tier);
    assertThat(tier.pinned).containsExactly(B);
  }

  @Test
  void aKeyThatIsPinnedAgainBeforeTheTierHeardThatItWasLetGoStays() {
    lease.pin(tier, List.of(A, B));
    tier.silent = true;
    assertThatThrownBy(() -> lease.release(tier, List.of(A))).isInstanceOf(KvtierException.class);
    tier.silent = false;
    lease.pin(tier, List.of(A));
    lease.renew(tier);
    assertThat(tier.pinned).containsExactlyInAnyOrder(A, B);
  }

  @Test
  void aKeyThatIsHeldNowhereHereCostsNoCall() {
    lease.pin(tier, List.of(A));
    int before = tier.calls;
    lease.letGo(tier, List.of(B));
    lease.release(tier, List.of(C));
    assertThat(tier.calls).isEqualTo(before);
  }

  @Test
  void aTierIsForgottenOnceItHasLeftForLongerThanALeaseRuns() {
    assertThat(lease.isOver(true, 100, 10)).isFalse();
    assertThat(lease.isOver(false, 200, 10)).isFalse();
    assertThat(lease.isOver(false, 210, 10)).isFalse();
    assertThat(lease.isOver(true, 211, 10)).isFalse();
    assertThat(lease.isOver(false, 212, 10)).isFalse();
    assertThat(lease.isOver(false, 223, 10)).isTrue();
  }
}
