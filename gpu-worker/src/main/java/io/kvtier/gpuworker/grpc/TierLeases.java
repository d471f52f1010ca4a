package io.kvtier.gpuworker.grpc;

import io.kvtier.KvtierException;
import io.kvtier.client.PagesClient;
import io.kvtier.gpuworker.core.NodeLease;
import io.kvtier.page.PageKey;
import java.time.Duration;
import java.util.Collection;
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
    final NodeLease lease = new NodeLease(PagesClient.BATCH_MAX);
  }

  /** A tier's lease calls, under our name. */
  private final class LeaseCalls implements NodeLease.Tier {
    private final String node;
    private final PagesClient client;

    LeaseCalls(String node, PagesClient client) {
      this.node = node;
      this.client = client;
    }

    @Override
    public long lease(long leaseId, List<PageKey> keys) {
      return client.lease(owner, epoch, leaseId, ttl, keys);
    }

    @Override
    public void release(List<PageKey> keys) {
      client.release(owner, epoch, keys);
    }

    @Override
    public void leasedAgain(int keys) {
      LOG.log(
          Level.WARNING,
          "the lease at tier node {0} has ended, of {1} keys: they are leased again",
          new Object[] {node, keys});
    }
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

  /** Calls for what is leased at a node, while no other call does. */
  private interface Work {
    void with(NodeLease lease, NodeLease.Tier tier);
  }

  private void alone(String node, PagesClient client, Work work) {
    while (!triedAlone(held(node), node, client, work)) {}
  }

  /** False if the node has been forgotten before it was this call's turn. */
  private boolean triedAlone(Held held, String node, PagesClient client, Work work) {
    held.lock.lock();
    try {
      boolean known = nodes.get(node) == held;
      if (known) {
        work.with(held.lease, new LeaseCalls(node, client));
      }
      return known;
    } finally {
      held.lock.unlock();
    }
  }

  /**
   * Pins keys at a node, whether their pages are there yet or not.
   *
   * @throws KvtierException as the tier refuses
   */
  void pin(String node, PagesClient client, List<PageKey> keys) {
    alone(node, client, (lease, tier) -> lease.pin(tier, keys));
  }

  /**
   * Pins keys that several sessions may share, until each has let them go.
   *
   * @throws KvtierException as the tier refuses; nothing is held then
   */
  void hold(String node, PagesClient client, List<PageKey> keys) {
    alone(node, client, (lease, tier) -> lease.hold(tier, keys));
  }

  /** Ends a hold of each key; the last one's end lets it go. */
  void letGo(String node, PagesClient client, List<PageKey> keys) {
    alone(node, client, (lease, tier) -> lease.letGo(tier, keys));
  }

  /** Lets keys go at a node, however often they are held. */
  void release(String node, PagesClient client, List<PageKey> keys) {
    alone(node, client, (lease, tier) -> lease.release(tier, keys));
  }

  /** Forgets what was leased at nodes that left the cluster long ago. */
  void retain(Collection<String> members) {
    long nowNs = System.nanoTime();
    nodes.forEach((node, held) -> {
      // A node that is being called, perhaps by who asks this, is looked at another time.
      if (held.lock.tryLock()) {
        try {
          if (held.lease.isOver(members.contains(node), nowNs, ttl.toNanos())) {
            nodes.remove(node, held);
          }
        } finally {
          held.lock.unlock();
        }
      }
    });
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
      if (held.lease.size() > 0) {
        held.lease.renew(new LeaseCalls(node, clients.of(node)));
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
      try {
        held.lease.end(new LeaseCalls(node, clients.of(node)));
      } catch (KvtierException e) {
        LOG.log(Level.FINE, "the lease at tier node " + node + " ends by itself", e);
      }
    });
    nodes.clear();
  }
}
