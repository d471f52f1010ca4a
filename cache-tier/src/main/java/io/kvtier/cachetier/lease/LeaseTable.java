package io.kvtier.cachetier.lease;

import static io.kvtier.KvtierException.requireInRange;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.page.PageKey;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Comparator;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.ConcurrentHashMap;
import org.jspecify.annotations.Nullable;

/**
 * The leases of a tier. An owner has at most one; it pins keys, whether their pages are stored yet
 * or not, until its deadline. A key that several leases pin is free when the last has let it go.
 *
 * <p>Fencing: every call of an owner carries an epoch. A higher one than any before takes the
 * owner's lease over, with all its keys; a lower one is refused from then on, also after the lease
 * has ended, as long as the owner is among the {@link #OWNERS_REMEMBERED} that called last.
 *
 * <p>Safe for use by many threads; {@link #isPinned} waits for nobody. Times are nanoseconds of any
 * clock that never runs back, and must come in order but for what threads lose on the way.
 */
public final class LeaseTable {
  private static final int OWNERS_REMEMBERED = 1 << 16;

  private final LeaseLimits limits;
  private final Map<String, Lease> leases = new HashMap<>();
  private final TreeSet<Lease> byDeadline =
      new TreeSet<>(
          Comparator.<Lease>comparingLong(l -> l.deadlineNs).thenComparingLong(l -> l.id));
  private final Map<PageKey, Integer> pins = new ConcurrentHashMap<>();
  private final Map<String, Long> epochs =
      new LinkedHashMap<>(16, .75f, true) {
        private static final long serialVersionUID = 1L;

        @Override
        protected boolean removeEldestEntry(Map.Entry<String, Long> eldest) {
          return size() > OWNERS_REMEMBERED;
        }
      };

  private long nextId;
  private long keysHeld;
  private long expired;

  private static final class Lease {
    final String owner;
    final long id;
    final Set<PageKey> keys = new HashSet<>();
    long deadlineNs;

    Lease(String owner, long id) {
      this.owner = owner;
      this.id = id;
    }
  }

  /**
   * A lease as it stands.
   *
   * @param id names the lease for its life; another id than before tells that the former has ended
   * @param deadlineNs when it ends unless renewed
   * @param freed keys that no lease pins any more, of leases that were found ended
   */
  public record Grant(long id, long deadlineNs, List<PageKey> freed) {}

  /**
   * @param firstId id of the first lease; others follow
   */
  public LeaseTable(LeaseLimits limits, long firstId) {
    this.limits = limits;
    this.nextId = firstId;
  }

  /**
   * Begins an owner's lease, or renews it and adds keys.
   *
   * @param epoch the owner's fencing epoch, not negative
   * @param id the lease that must still run, or 0: any, or a new one
   * @param ttlNs from now on, 1..{@link LeaseLimits#ttlNsMax}; a renewal never shortens a lease
   * @param keys to pin as well; may repeat
   * @throws KvtierException PRECONDITION if the epoch is stale; NOT_FOUND if lease {@code id} has
   *     ended; EXHAUSTED if a limit would be passed; INVALID for arguments out of their bounds
   */
  public synchronized Grant acquire(
      String owner, long epoch, long id, long ttlNs, Collection<PageKey> keys, long nowNs) {
    requireOwner(owner);
    requireInRange("epoch", epoch, 0, Long.MAX_VALUE);
    requireInRange("lease ttl, ns", ttlNs, 1, limits.ttlNsMax());
    requireCurrent(owner, epoch);
    List<PageKey> freed = expire(nowNs);
    Lease lease = leases.get(owner);
    if (id != 0 && (lease == null || lease.id != id)) {
      throw new KvtierException(
          Code.NOT_FOUND,
          "lease %d of owner '%s' has ended: lease its keys again".formatted(id, owner));
    }
    Set<PageKey> added = new HashSet<>(keys);
    if (lease != null) {
      added.removeAll(lease.keys);
    }
    requireRoom(owner, lease, added.size());
    epochs.put(owner, epoch);
    if (lease == null) {
      lease = new Lease(owner, nextId++);
      lease.deadlineNs = nowNs + ttlNs;
      leases.put(owner, lease);
    } else {
      byDeadline.remove(lease);
      lease.deadlineNs = Math.max(lease.deadlineNs, nowNs + ttlNs);
    }
    byDeadline.add(lease);
    for (PageKey key : added) {
      lease.keys.add(key);
      pins.merge(key, 1, Integer::sum);
    }
    keysHeld += added.size();
    return new Grant(lease.id, lease.deadlineNs, freed);
  }

  private static void requireOwner(String owner) {
    if (owner.isEmpty() || owner.length() > LeaseLimits.OWNER_LENGTH_MAX) {
      throw KvtierException.invalid(
          "owner has %d characters; it must have 1..%d",
          owner.length(), LeaseLimits.OWNER_LENGTH_MAX);
    }
  }

  private void requireCurrent(String owner, long epoch) {
    Long highest = epochs.get(owner);
    if (highest != null && epoch < highest) {
      throw KvtierException.precondition(
          "epoch %d of owner '%s' is stale: epoch %d has taken over; leave its pages to that",
          epoch, owner, highest);
    }
  }

  private void requireRoom(String owner, @Nullable Lease lease, int added) {
    if (lease == null && leases.size() >= limits.leasesMax()) {
      throw new KvtierException(
          Code.EXHAUSTED,
          "tier has %d leases, which is its bound; release one".formatted(leases.size()));
    }
    int held = lease == null ? 0 : lease.keys.size();
    if (added > limits.keysPerLeaseMax() - held) {
      throw new KvtierException(
          Code.EXHAUSTED,
          "lease of owner '%s' has %d keys and would get %d more; at most %d are leased to one owner"
              .formatted(owner, held, added, limits.keysPerLeaseMax()));
    }
    if (added > limits.keysMax() - keysHeld) {
      throw new KvtierException(
          Code.EXHAUSTED,
          "leases have %d keys and would get %d more; the tier's bound is %d: release some"
              .formatted(keysHeld, added, limits.keysMax()));
    }
  }

  /**
   * Lets keys go, or the whole lease.
   *
   * @param keys which; none: all, and the lease ends. Keys that are not leased are no error
   * @return keys that no lease pins any more
   * @throws KvtierException PRECONDITION if the epoch is stale
   */
  public synchronized List<PageKey> release(
      String owner, long epoch, Collection<PageKey> keys, long nowNs) {
    requireOwner(owner);
    requireInRange("epoch", epoch, 0, Long.MAX_VALUE);
    requireCurrent(owner, epoch);
    List<PageKey> freed = expire(nowNs);
    Lease lease = leases.get(owner);
    // Also without a lease: whoever has a lower epoch is fenced off from here on.
    epochs.put(owner, epoch);
    if (lease == null) {
      return freed;
    }
    if (keys.isEmpty()) {
      end(lease, freed);
    } else {
      for (PageKey key : keys) {
        if (lease.keys.remove(key)) {
          unpin(key, freed);
        }
      }
    }
    return freed;
  }

  /** Ends the leases whose deadline has passed; returns the keys that no lease pins any more. */
  public synchronized List<PageKey> expire(long nowNs) {
    List<PageKey> freed = new ArrayList<>();
    while (!byDeadline.isEmpty() && byDeadline.first().deadlineNs - nowNs <= 0) {
      end(byDeadline.first(), freed);
      expired++;
    }
    return freed;
  }

  private void end(Lease lease, List<PageKey> freed) {
    leases.remove(lease.owner);
    byDeadline.remove(lease);
    lease.keys.forEach(key -> unpin(key, freed));
  }

  private void unpin(PageKey key, List<PageKey> freed) {
    keysHeld--;
    if (pins.compute(key, (k, count) -> count == null || count == 1 ? null : count - 1) == null) {
      freed.add(key);
    }
  }

  /** Whether any lease pins the key. */
  public boolean isPinned(PageKey key) {
    return pins.containsKey(key);
  }

  /** Keys that are pinned, each once. */
  public int keysPinned() {
    return pins.size();
  }

  /** Leases that run. */
  public synchronized int leases() {
    return leases.size();
  }

  /** Leases that ended by themselves. */
  public synchronized long expired() {
    return expired;
  }

  /**
   * Pins that no running lease accounts for: those of leases that ended before a time and are still
   * here. Anything but 0, for a time long enough ago for {@link #expire} to have been called since,
   * is a fault.
   */
  public synchronized long leaked(long endedBeforeNs) {
    long leaked = 0;
    long held = 0;
    for (Lease lease : leases.values()) {
      held += lease.keys.size();
      leaked += lease.deadlineNs - endedBeforeNs < 0 ? lease.keys.size() : 0;
    }
    return leaked + Math.abs(keysHeld - held);
  }
}
