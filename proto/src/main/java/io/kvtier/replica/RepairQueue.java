package io.kvtier.replica;

import io.kvtier.page.PageKey;
import io.kvtier.replica.ReplicaCounts.Count;
import java.util.Collection;
import java.util.LinkedHashMap;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * The pages that wait for repair, each once, bounded in number; what is too much is dropped and
 * counted, and will be found again by the next read that misses it. For one thread at a time. Times
 * are of one monotonic clock.
 */
public final class RepairQueue {
  /**
   * A page to repair.
   *
   * @param tries that have failed
   */
  public record Repair(PageKey key, int tries) {}

  private record Waiting(int tries, long dueNs) {}

  private final ReplicaConfig config;
  private final ReplicaCounts counts;

  /** By the time they came, so that those due at once are near the front. */
  private final Map<PageKey, Waiting> waiting = new LinkedHashMap<>();

  public RepairQueue(ReplicaConfig config, ReplicaCounts counts) {
    this.config = config;
    this.counts = counts;
  }

  /** Takes a page in, unless it waits already. */
  public void offer(PageKey key, long nowNs) {
    if (waiting.containsKey(key)) {
      return;
    }
    counts.add(Count.REPAIRS_QUEUED, 1);
    put(new Repair(key, 0), nowNs);
  }

  private void put(Repair repair, long dueNs) {
    if (waiting.size() >= config.repairsMax()) {
      counts.add(Count.REPAIRS_DROPPED, 1);
    } else {
      waiting.put(repair.key(), new Waiting(repair.tries(), dueNs));
    }
  }

  /** Takes a repair back that failed: it is due again later, or dropped. */
  public void failed(Repair repair, long nowNs) {
    int tries = repair.tries() + 1;
    if (tries >= config.repairTriesMax()) {
      counts.add(Count.REPAIRS_DROPPED, 1);
    } else if (!waiting.containsKey(repair.key())) {
      long delayNs = config.repairDelay().toNanos() << Math.min(tries - 1, 10);
      put(new Repair(repair.key(), tries), nowNs + delayNs);
    }
  }

  /** Removes and returns a page that is due; null: there is none. */
  public @Nullable Repair poll(long nowNs) {
    for (Map.Entry<PageKey, Waiting> entry : waiting.entrySet()) {
      if (entry.getValue().dueNs() - nowNs <= 0) {
        waiting.remove(entry.getKey());
        return new Repair(entry.getKey(), entry.getValue().tries());
      }
    }
    return null;
  }

  /** Nanoseconds until a page is due; {@link Long#MAX_VALUE}: none waits. */
  public long untilDueNs(long nowNs) {
    long untilNs = Long.MAX_VALUE;
    for (Waiting each : waiting.values()) {
      untilNs = Math.min(untilNs, Math.max(0, each.dueNs() - nowNs));
      if (untilNs == 0) {
        return 0;
      }
    }
    return untilNs;
  }

  /** Forgets pages: they are deleted. */
  public void forget(Collection<PageKey> keys) {
    keys.forEach(waiting::remove);
  }

  public int size() {
    return waiting.size();
  }
}
