package io.kvtier.gpuworker.core;

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

/**
 * What a worker has leased at one tier node, and how often each key is held. For one thread at a
 * time. Keys that the tier refuses to pin are not held. Keys that it could not be told to let go
 * are let go here, and there with the next renewal that reaches it.
 */
public final class NodeLease {
  /** The tier, as far as leases go; refusals as its Lease and Release calls have them. */
  public interface Tier {
    /**
     * Begins or renews the worker's lease and pins keys.
     *
     * @param leaseId the lease, or 0 to begin one
     * @param keys at most as many as a call takes; none: renew
     * @return the lease's id
     */
    long lease(long leaseId, List<PageKey> keys);

    /** Lets keys go; none: all, and the lease ends. */
    void release(List<PageKey> keys);

    /** Hears that the lease had ended unasked; so many keys are leased again. */
    void leasedAgain(int keys);
  }

  private final int batchMax;

  /** How often each pinned key is held by sessions that share its page; 0: it belongs to one. */
  private final Map<PageKey, Integer> keys = new HashMap<>();

  /** Keys let go here that the tier has not been told of. */
  private final Set<PageKey> owed = new HashSet<>();

  private long leaseId;
  private boolean begun;
  private long goneSinceNs;
  private boolean gone;

  /**
   * Nothing leased.
   *
   * @param batchMax keys that one call takes
   */
  public NodeLease(int batchMax) {
    this.batchMax = batchMax;
  }

  /** Keys that are leased, or that the tier has not been told to let go. */
  public int size() {
    return keys.size() + owed.size();
  }

  /** Whether a key is leased. */
  public boolean contains(PageKey key) {
    return keys.containsKey(key);
  }

  /** Pins keys of pages that one session has, whether the pages are there yet or not. */
  public void pin(Tier tier, Collection<PageKey> wanted) {
    begin(tier);
    lease(tier, wanted);
    wanted.forEach(key -> keys.putIfAbsent(key, 0));
  }

  /** A worker of our name that has died may have left a lease: its pages are nobody's. */
  private void begin(Tier tier) {
    if (!begun) {
      tier.release(List.of());
      begun = true;
    }
  }

  private void lease(Tier tier, Collection<PageKey> wanted) {
    try {
      leaseInBatches(tier, wanted);
    } catch (KvtierException e) {
      if (e.code() != Code.NOT_FOUND) {
        throw e;
      }
      // The tier has been started again, or has not heard of us for too long.
      tier.leasedAgain(keys.size());
      leaseId = 0;
      owed.clear();
      leaseInBatches(tier, keys.keySet());
      leaseInBatches(tier, wanted);
    }
  }

  private void leaseInBatches(Tier tier, Collection<PageKey> wanted) {
    List<PageKey> all = new ArrayList<>(wanted);
    int from = 0;
    do {
      List<PageKey> batch = all.subList(from, Math.min(all.size(), from + batchMax));
      leaseId = tier.lease(leaseId, batch);
      // Pinned again, what was to be let go stays.
      owed.removeAll(batch);
      from += batch.size();
    } while (from < all.size());
  }

  /** Pins keys that several sessions may share, until each has let them go. */
  public void hold(Tier tier, Collection<PageKey> shared) {
    begin(tier);
    List<PageKey> fresh = shared.stream().filter(key -> !keys.containsKey(key)).toList();
    if (!fresh.isEmpty()) {
      lease(tier, fresh);
    }
    shared.forEach(key -> keys.merge(key, 1, Integer::sum));
  }

  /** Ends a hold of each key; the last one's end lets it go. */
  public void letGo(Tier tier, Collection<PageKey> shared) {
    List<PageKey> last =
        shared.stream()
            .filter(key -> {
              Integer holds = keys.get(key);
              return holds != null && holds <= 1;
            })
            .toList();
    shared.forEach(key -> keys.computeIfPresent(key, (_, holds) -> Math.max(1, holds) - 1));
    release(tier, last);
  }

  /** Lets keys go, however often they are held. */
  public void release(Tier tier, Collection<PageKey> unwanted) {
    for (PageKey key : unwanted) {
      if (keys.remove(key) != null) {
        owed.add(key);
      }
    }
    tellOwed(tier);
  }

  private void tellOwed(Tier tier) {
    if (owed.isEmpty()) {
      return;
    }
    if (keys.isEmpty()) {
      // No key: all, and the lease ends.
      tier.release(List.of());
      leaseId = 0;
    } else {
      List<PageKey> all = List.copyOf(owed);
      for (int from = 0; from < all.size(); from += batchMax) {
        tier.release(all.subList(from, Math.min(all.size(), from + batchMax)));
      }
    }
    owed.clear();
  }

  /** Renews the lease, if anything is leased, and lets go what could not be before. */
  public void renew(Tier tier) {
    tellOwed(tier);
    if (!keys.isEmpty()) {
      lease(tier, List.of());
    }
  }

  /**
   * Hears whether the tier is a member. One that has not been for longer than a lease runs has
   * leased nothing any more, and what it had is stored elsewhere: forget it.
   *
   * @return whether it has to be forgotten
   */
  public boolean isOver(boolean member, long nowNs, long ttlNs) {
    if (!member && !gone) {
      goneSinceNs = nowNs;
    }
    gone = !member;
    return gone && nowNs - goneSinceNs > ttlNs;
  }

  /** Lets everything go. */
  public void end(Tier tier) {
    if (begun) {
      begun = false;
      tier.release(List.of());
    }
  }
}
