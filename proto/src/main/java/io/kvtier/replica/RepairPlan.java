package io.kvtier.replica;

import io.kvtier.page.PageKey;
import io.kvtier.replica.RepairQueue.Repair;
import io.kvtier.replica.ReplicaCounts.Count;
import java.util.Collection;
import java.util.HashSet;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/**
 * Which pages are to be brought back to all their homes, and when: those that a read or put found
 * missing somewhere, and, when the membership has changed, those that were stored here and have got
 * a new home. For one thread at a time. Times are of one monotonic clock.
 */
public final class RepairPlan {
  private final ReplicaConfig config;
  private final ReplicaCounts counts;
  private final RepairQueue queue;

  /** Pages stored here and not deleted, as far as there is room. */
  private final Set<PageKey> stored = new HashSet<>();

  /** Stored pages that have got a new home and have not been looked after yet. */
  private final LinkedHashSet<PageKey> moved = new LinkedHashSet<>();

  private @Nullable Rendezvous seen;

  /**
   * How a page is copied.
   *
   * @param <P> a page's bytes
   */
  public interface Copier<P> {
    /** The page of a node; null: it lacks it or does not answer. */
    @Nullable P read(String node, PageKey key);

    /** Stores a page on a node; false: it does not take it. */
    boolean write(String node, PageKey key, P page);
  }

  public RepairPlan(ReplicaConfig config, ReplicaCounts counts) {
    this.config = config;
    this.counts = counts;
    this.queue = new RepairQueue(config, counts);
  }

  /** Has a page repaired. */
  public void offer(PageKey key, long nowNs) {
    queue.offer(key, nowNs);
  }

  /** Remembers pages that have been stored. */
  public void remember(Collection<PageKey> keys) {
    for (PageKey key : keys) {
      if (stored.size() < config.keysMax()) {
        stored.add(key);
      }
    }
  }

  /** Forgets pages that are deleted. */
  public void forget(Collection<PageKey> keys) {
    queue.forget(keys);
    keys.forEach(stored::remove);
  }

  /**
   * Hears of the members of now; true if they are others than before. An epoch without nodes is
   * taken for none at all.
   */
  public boolean members(Rendezvous now) {
    Rendezvous before = seen;
    if (now.nodes().isEmpty() || (before != null && before.sameMembers(now))) {
      return false;
    }
    seen = now;
    if (before != null) {
      stored.stream()
          .filter(key -> now.hasNewHome(key, config.replicas(), before))
          .forEach(moved::add);
    }
    return true;
  }

  /** Removes and returns a page that is due; null: there is none. */
  public @Nullable Repair poll(long nowNs) {
    Repair due = queue.poll(nowNs);
    while (due == null && !moved.isEmpty()) {
      PageKey key = moved.removeFirst();
      if (stored.contains(key)) {
        counts.add(Count.REPAIRS_QUEUED, 1);
        due = new Repair(key, 0);
      }
    }
    return due;
  }

  /** Takes a repair back that failed: it is due again later, or dropped. */
  public void failed(Repair repair, long nowNs) {
    queue.failed(repair, nowNs);
  }

  /** Nanoseconds until a page is due; {@link Long#MAX_VALUE}: none waits. */
  public long untilDueNs(long nowNs) {
    return moved.isEmpty() ? queue.untilDueNs(nowNs) : 0;
  }

  /** Copies a page from wherever it is to all homes; false: not all have it yet. */
  public <P> boolean mend(Rendezvous now, PageKey key, Copier<P> copier) {
    List<String> ranked = now.homes(key, config.nodesMax());
    int homes = Math.min(config.replicas(), ranked.size());
    boolean all = true;
    for (int source = 0; source < ranked.size(); source++) {
      P page = copier.read(ranked.get(source), key);
      if (page != null) {
        for (int home = 0; home < homes; home++) {
          all &= home == source || copier.write(ranked.get(home), key, page);
        }
        return all;
      }
    }
    return false;
  }
}
