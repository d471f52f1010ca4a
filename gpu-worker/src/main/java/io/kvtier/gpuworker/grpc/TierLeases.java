package io.kvtier.gpuworker.grpc;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.client.PagesClient;
import io.kvtier.page.PageKey;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.ReentrantLock;
import java.util.logging.Level;
import java.util.logging.Logger;

/**
 * Keeps tiers from evicting the pages of this worker's sessions: one lease a tier node, under the
 * worker's name, that pins every key before its page is put and lets it go before it is deleted.
 * Leases are renewed three times in their time to live, so those of a worker that has died end
 * within it. A tier that has been started again, or has not heard of us for too long, is given all
 * keys anew. Safe for any number of threads; calls to one node wait for each other.
 */
final class TierLeases implements AutoCloseable {
  private static final Logger LOG = Logger.getLogger(TierLeases.class.getName());
  private static final int RENEWALS = 3;

  /** Finds the client of a node. */
  interface Clients {
    /**
     * The client.
     *
     * @throws KvtierException UNAVAILABLE if the node has left
     */
    PagesClient of(String node);
  }

  private static final class Held {
    final ReentrantLock lock = new ReentrantLock();

    /** How often each pinned key is held by sessions that share its page; 0: it belongs to one. */
    final Map<PageKey, Integer> keys = new HashMap<>();

    long leaseId;
    boolean begun;
  }

  private final String owner;
  private final long epoch;
  private final Duration ttl;
  private final Clients clients;
  private final Map<String, Held> nodes = new ConcurrentHashMap<>();
  private final ScheduledExecutorService clock =
      Executors.newSingleThreadScheduledExecutor(
          Thread.ofPlatform().daemon().name("kvtier-lease-clock").factory());

  /**
   * Leases with nothing pinned.
   *
   * @param owner name that no other worker has at a time
   * @param epoch higher than that of any worker that had the name before
   */
  TierLeases(String owner, long epoch, Duration ttl, Clients clients) {
    this.owner = owner;
    this.epoch = epoch;
    this.ttl = ttl;
    this.clients = clients;
    long periodMs = Math.max(1, ttl.toMillis() / RENEWALS);
    var _ = clock.scheduleAtFixedRate(this::renewAll, periodMs, periodMs, TimeUnit.MILLISECONDS);
  }

  private Held held(String node) {
    return nodes.computeIfAbsent(node, id -> new Held());
  }

  /**
   * Pins keys at a node, whether their pages are there yet or not.
   *
   * @throws KvtierException as the tier refuses
   */
  void pin(String node, PagesClient client, List<PageKey> keys) {
    Held held = held(node);
    held.lock.lock();
    try {
      begin(held, client);
      lease(node, held, client, keys);
      keys.forEach(key -> held.keys.putIfAbsent(key, 0));
    } finally {
      held.lock.unlock();
    }
  }

  /** A worker of our name that has died may have left a lease: its pages are nobody's. */
  private void begin(Held held, PagesClient client) {
    if (!held.begun) {
      client.release(owner, epoch, List.of());
      held.begun = true;
    }
  }

  private void lease(String node, Held held, PagesClient client, Collection<PageKey> keys) {
    try {
      leaseInBatches(held, client, keys);
    } catch (KvtierException e) {
      if (e.code() != Code.NOT_FOUND) {
        throw e;
      }
      LOG.log(
          Level.WARNING,
          "the lease at tier node {0} has ended, of {1} keys: they are leased again",
          new Object[] {node, held.keys.size()});
      held.leaseId = 0;
      leaseInBatches(held, client, held.keys.keySet());
      leaseInBatches(held, client, keys);
    }
  }

  private void leaseInBatches(Held held, PagesClient client, Collection<PageKey> keys) {
    List<PageKey> all = new ArrayList<>(keys);
    int from = 0;
    do {
      List<PageKey> batch = all.subList(from, Math.min(all.size(), from + PagesClient.BATCH_MAX));
      held.leaseId = client.lease(owner, epoch, held.leaseId, ttl, batch);
      from += batch.size();
    } while (from < all.size());
  }

  /**
   * Pins keys that several sessions may share, until each has let them go.
   *
   * @throws KvtierException as the tier refuses; nothing is held then
   */
  void hold(String node, PagesClient client, List<PageKey> keys) {
    Held held = held(node);
    held.lock.lock();
    try {
      begin(held, client);
      List<PageKey> fresh = keys.stream().filter(key -> !held.keys.containsKey(key)).toList();
      if (!fresh.isEmpty()) {
        lease(node, held, client, fresh);
      }
      keys.forEach(key -> held.keys.merge(key, 1, Integer::sum));
    } finally {
      held.lock.unlock();
    }
  }

  /** Ends a hold of each key; the last one's end lets it go. */
  void letGo(String node, PagesClient client, List<PageKey> keys) {
    Held held = held(node);
    held.lock.lock();
    try {
      List<PageKey> last =
          keys.stream().filter(key -> held.keys.getOrDefault(key, 0) <= 1).toList();
      release(node, client, last);
      keys.forEach(key -> held.keys.computeIfPresent(key, (_, holds) -> holds - 1));
    } finally {
      held.lock.unlock();
    }
  }

  /** Lets keys go at a node, however often they are held. */
  void release(String node, PagesClient client, List<PageKey> keys) {
    Held held = held(node);
    held.lock.lock();
    try {
      if (!held.begun || keys.isEmpty()) {
        return;
      }
      long known = keys.stream().distinct().filter(held.keys::containsKey).count();
      if (known == held.keys.size()) {
        // No key: all, and the lease ends.
        client.release(owner, epoch, List.of());
        held.leaseId = 0;
      } else {
        releaseInBatches(client, keys);
      }
      keys.forEach(held.keys::remove);
    } finally {
      held.lock.unlock();
    }
  }

  private void releaseInBatches(PagesClient client, List<PageKey> keys) {
    for (int from = 0; from < keys.size(); from += PagesClient.BATCH_MAX) {
      client.release(
          owner, epoch, keys.subList(from, Math.min(keys.size(), from + PagesClient.BATCH_MAX)));
    }
  }

  /** Each node on a thread of its own: one that does not answer must not end the others' leases. */
  private void renewAll() {
    nodes.forEach(
        (node, held) -> Thread.ofVirtual().name("kvtier-lease-", 0).start(() -> renew(node, held)));
  }

  private void renew(String node, Held held) {
    if (!held.lock.tryLock()) {
      // Another call is under way, which renews too, or fails as this would.
      return;
    }
    try {
      if (!held.keys.isEmpty()) {
        lease(node, held, clients.of(node), List.of());
      }
    } catch (KvtierException e) {
      LOG.log(
          Level.WARNING,
          "the lease at tier node {0} was not renewed: {1}",
          new Object[] {node, e.getMessage()});
    } finally {
      held.lock.unlock();
    }
  }

  /** Ends all leases, as far as nodes answer. Idempotent. */
  @Override
  public void close() {
    clock.shutdownNow();
    nodes.forEach((node, held) -> {
      if (held.begun) {
        held.begun = false;
        try {
          clients.of(node).release(owner, epoch, List.of());
        } catch (KvtierException e) {
          LOG.log(Level.FINE, "the lease at tier node " + node + " ends by itself", e);
        }
      }
    });
    nodes.clear();
  }
}
