package io.kvtier.replica;

import io.kvtier.page.PageKey;
import io.kvtier.replica.RepairQueue.Repair;
import io.kvtier.replica.ReplicaCounts.Count;
import java.util.ArrayList;
import java.util.BitSet;
import java.util.Collection;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import org.jspecify.annotations.Nullable;

/**
 * Which pages are to be brought back to all their homes, and when: those that a read or put found
 * missing somewhere; when the membership has changed, those that were stored or are held here and
 * have got a new home; and those that come to be held here and lack a copy. For one thread at a
 * time. Times are of one monotonic clock.
 */
public final class RepairPlan {
  private final ReplicaConfig config;
  private final ReplicaCounts counts;
  private final RepairQueue queue;

  /**
   * Pages stored or held here, as far as there is room: how often each is held; 0 for one that was
   * only stored, and counts until it is deleted.
   */
  private final Map<PageKey, Integer> stored = new HashMap<>();

  /** Stored pages that have got a new home and have not been looked after yet. */
  private final LinkedHashSet<PageKey> moved = new LinkedHashSet<>();

  /** Held pages that others have stored, of which it is not known yet whether a home lacks them. */
  private final LinkedHashSet<PageKey> unseen = new LinkedHashSet<>();

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

  /**
   * Remembers pages that have been stored.
   *
   * @param placed the members that gave them their homes: those of now may be others already
   */
  public void remember(Collection<PageKey> keys, Rendezvous placed) {
    Rendezvous now = seen == null || seen.sameMembers(placed) ? null : seen;
    for (PageKey key : keys) {
      unseen.remove(key);
      if (stored.size() < config.keysMax()) {
        stored.putIfAbsent(key, 0);
        if (now != null && now.hasNewHome(key, config.replicas(), placed)) {
          moved.add(key);
        }
      }
    }
  }

  /** Remembers pages that somebody relies on from now on, whoever stored them. */
  public void hold(Collection<PageKey> keys) {
    for (PageKey key : keys) {
      if (stored.size() < config.keysMax() || stored.containsKey(key)) {
        if (stored.merge(key, 1, Integer::sum) == 1) {
          unseen.add(key);
        }
      }
    }
  }

  /**
   * Ends a hold of each page; one that nobody holds any more is left to those who do elsewhere, so
   * that a repair does not pin anew what nobody here lets go.
   */
  public void letGo(Collection<PageKey> keys) {
    for (PageKey key : keys) {
      if (stored.containsKey(key)
          && stored.computeIfPresent(key, (_, holds) -> holds <= 1 ? null : holds - 1) == null) {
        queue.forget(List.of(key));
        unseen.remove(key);
      }
    }
  }

  /** Forgets pages that are deleted. */
  public void forget(Collection<PageKey> keys) {
    queue.forget(keys);
    keys.forEach(stored::remove);
    keys.forEach(unseen::remove);
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
      stored.keySet().stream()
          .filter(key -> now.hasNewHome(key, config.replicas(), before))
          .forEach(moved::add);
    }
    return true;
  }

  /** Tells which pages nodes have. */
  public interface Looker {
    /** Which of some keys a node has; null: it does not answer. */
    @Nullable BitSet contains(String node, List<PageKey> keys);
  }

  /** Whether {@link #takeUnseen} has any. */
  public boolean hasUnseen() {
    return !unseen.isEmpty();
  }

  /**
   * Takes pages out that have come to be held here and have not been looked for yet: whoever stored
   * them may be gone, and may not have seen that they lost a copy.
   *
   * @param max most pages
   */
  public List<PageKey> takeUnseen(int max) {
    List<PageKey> taken = unseen.stream().limit(max).toList();
    taken.forEach(unseen::remove);
    return taken;
  }

  /** Finds those of some pages that a home or a draining node has, but not all their homes. */
  public static List<PageKey> lacking(
      Rendezvous now, int replicas, Collection<PageKey> keys, Looker looker) {
    Map<String, List<PageKey>> byHome = new TreeMap<>();
    for (PageKey key : keys) {
      now.homes(key, replicas)
          .forEach(home -> {
            byHome.computeIfAbsent(home, _ -> new ArrayList<>()).add(key);
          });
    }
    Set<PageKey> there = new HashSet<>();
    Set<PageKey> lacking = new LinkedHashSet<>();
    byHome.forEach((home, asked) -> {
      BitSet found = looker.contains(home, asked);
      for (int i = 0; i < asked.size() && found != null; i++) {
        (found.get(i) ? there : lacking).add(asked.get(i));
      }
    });
    for (String node : now.draining()) {
      List<PageKey> asked = lacking.stream().filter(key -> !there.contains(key)).toList();
      BitSet found = asked.isEmpty() ? null : looker.contains(node, asked);
      for (int i = 0; i < asked.size() && found != null; i++) {
        if (found.get(i)) {
          there.add(asked.get(i));
        }
      }
    }
    // What nobody has is on its way, or lost: a read will tell.
    lacking.retainAll(there);
    return List.copyOf(lacking);
  }

  /** Removes and returns a page that is due; null: there is none. */
  public @Nullable Repair poll(long nowNs) {
    Repair due = queue.poll(nowNs);
    while (due == null && !moved.isEmpty()) {
      PageKey key = moved.removeFirst();
      if (stored.containsKey(key)) {
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
    int homes = Math.min(config.replicas(), now.nodes().size());
    int[] sources = now.sources(key, config.replicas(), config.nodesMax());
    boolean all = true;
    for (int source = 0; source < sources.length; source++) {
      P page = copier.read(now.everyone().get(sources[source]), key);
      if (page != null) {
        for (int home = 0; home < homes; home++) {
          all &= home == source || copier.write(now.nodes().get(sources[home]), key, page);
        }
        return all;
      }
    }
    return false;
  }
}
