package io.kvtier.gpuworker.grpc;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.client.PageTransport;
import io.kvtier.client.PagesClient;
import io.kvtier.client.ReplicatedPages;
import io.kvtier.gpuworker.session.SessionTiers;
import io.kvtier.page.PageKey;
import io.kvtier.replica.Rendezvous;
import io.kvtier.replica.ReplicaConfig;
import io.kvtier.replica.ReplicaCounts;
import io.kvtier.v1.MembershipResponse;
import io.kvtier.v1.Node;
import io.kvtier.v1.NodeState;
import io.kvtier.v1.Role;
import java.time.Duration;
import java.util.Comparator;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.function.Supplier;
import java.util.stream.Collectors;
import org.jspecify.annotations.Nullable;

/**
 * Where sessions keep their pages: with one copy of each, all of a session's pages on the node that
 * rendezvous hashing chooses of the members at its opening; with more, each page on its own nodes
 * of the members of now. Keeps one client a node. Safe for any number of threads.
 */
public final class TierDirectory implements SessionTiers, AutoCloseable {
  /** How old the members may be that replicas are placed by. */
  private static final long MEMBERS_AGE_NS = 500_000_000L;

  /** How long clients of targets without a member are kept. */
  private static final long GONE_NS = TimeUnit.MINUTES.toNanos(1);

  /**
   * How pages are leased.
   *
   * @param owner a name that no other worker has at a time
   * @param epoch higher than that of any worker that had the name before
   * @param ttl how long pages stay after this worker has died
   */
  public record Lease(String owner, long epoch, Duration ttl) {}

  /**
   * The tier nodes of an epoch.
   *
   * @param ranking of those that take pages
   * @param ranked these, in the order of the ranking's indexes
   * @param nodes all, also those that drain and only serve what they have
   */
  private record Members(Rendezvous ranking, List<Node> ranked, List<Node> nodes) {
    static Members of(MembershipResponse membership) {
      List<Node> tiers =
          membership.getNodesList().stream()
              .filter(node -> node.getRole() == Role.ROLE_TIER)
              .sorted(Comparator.comparing(Node::getNodeId))
              .toList();
      List<Node> active =
          tiers.stream().filter(node -> node.getState() != NodeState.NODE_STATE_DRAINING).toList();
      // Where all drain, pages have nowhere else to go.
      List<Node> ranked = active.isEmpty() ? tiers : active;
      return new Members(
          new Rendezvous(
              membership.getMembershipEpoch(),
              ranked.stream().map(Node::getNodeId).toList(),
              ranked.stream().collect(Collectors.toMap(Node::getNodeId, Node::getInstance)),
              tiers.stream().filter(node -> !ranked.contains(node)).map(Node::getNodeId).toList()),
          ranked,
          tiers);
    }
  }

  private final Supplier<MembershipResponse> membership;
  private final Duration deadline;
  private final Map<String, PagesClient> clients = new ConcurrentHashMap<>();
  private final Map<String, NodeTransport> nodes = new ConcurrentHashMap<>();
  private final Map<String, Long> goneSinceNs = new ConcurrentHashMap<>();
  private final TierLeases leases;
  private final AtomicBoolean refreshing = new AtomicBoolean();
  private final @Nullable ReplicatedPages replicated;
  private volatile Members last = new Members(new Rendezvous(0, List.of()), List.of(), List.of());
  private volatile long lastNs = System.nanoTime() - MEMBERS_AGE_NS;
  private volatile boolean closed;

  /**
   * A directory.
   *
   * @param membership asks for the nodes whose lease holds; may block
   * @param deadline of each call to a node
   * @param lease under which pages are kept from eviction
   */
  public TierDirectory(
      Supplier<MembershipResponse> membership,
      Duration deadline,
      ReplicaConfig replicas,
      Lease lease) {
    this.membership = membership;
    this.deadline = deadline;
    this.leases = new TierLeases(lease.owner(), lease.epoch(), lease.ttl(), this::clientOf);
    this.replicated =
        replicas.replicas() == 1
            ? null
            : new ReplicatedPages(this::recentMembers, this::transport, replicas);
  }

  /** What replication has done; empty: there is one copy of each page. */
  public Optional<ReplicaCounts> replicaCounts() {
    return Optional.ofNullable(replicated).map(ReplicatedPages::counts);
  }

  @Override
  public PageTransport tierFor(String placement) {
    Members now = refreshOrRefuse();
    return replicated != null
        ? replicated
        : new HomeTransport(placement, node(chosen(now, placement)), this);
  }

  @Override
  public PageTransport tierHolding(String placement, List<PageKey> keys) {
    Members now = refreshOrRefuse();
    if (replicated != null) {
      return replicated;
    }
    Node best = chosen(now, placement);
    int most = 0;
    KvtierException silent = null;
    for (Node tier : now.nodes()) {
      try {
        int run = node(tier).contains(keys).nextClearBit(0);
        if (run > most) {
          most = run;
          best = tier;
        }
      } catch (KvtierException e) {
        silent = e;
      }
    }
    if (silent != null && most == 0) {
      throw silent;
    }
    return new HomeTransport(placement, node(best), this);
  }

  /** Another home for what was placed at a node that has left; empty: it is there, or no other. */
  Optional<NodeTransport> homeInsteadOf(NodeTransport left, String placement) {
    Members now = refresh();
    return now.nodes().isEmpty() || targetIn(now, left.nodeId()).isPresent()
        ? Optional.empty()
        : Optional.of(node(chosen(now, placement)));
  }

  private static Node chosen(Members now, String placement) {
    return now.ranked().get(now.ranking().ranking(keyOf(placement), 1)[0]);
  }

  private NodeTransport node(Node tier) {
    return new NodeTransport(tier.getNodeId(), tier.getTarget(), this);
  }

  private Members refreshOrRefuse() {
    Members now = refresh();
    if (now.nodes().isEmpty()) {
      throw new KvtierException(
          Code.UNAVAILABLE,
          "no cache tier is registered at the coordinator; start one with: kvtier cache-tier");
    }
    return now;
  }

  /** Sessions are ranked like pages. */
  private static PageKey keyOf(String sessionId) {
    return new PageKey(sessionId.hashCode(), sessionId.length(), 0, 0);
  }

  TierLeases leases() {
    return leases;
  }

  private PagesClient clientOf(String nodeId) {
    Optional<String> target = targetIn(last, nodeId);
    if (target.isEmpty()) {
      target = targetOf(nodeId);
    }
    return client(
        target.orElseThrow(() ->
            new KvtierException(
                Code.UNAVAILABLE, "tier node %s has left the cluster".formatted(nodeId))));
  }

  /** The client of a target. */
  PagesClient client(String target) {
    return clients.computeIfAbsent(target, t -> new PagesClient(t, deadline));
  }

  /** Where a node is now; empty: its lease has run out. */
  Optional<String> targetOf(String nodeId) {
    return targetIn(refresh(), nodeId);
  }

  private static Optional<String> targetIn(Members members, String nodeId) {
    return members.nodes().stream()
        .filter(node -> node.getNodeId().equals(nodeId))
        .map(Node::getTarget)
        .findFirst();
  }

  private Members refresh() {
    Members now = Members.of(membership.get());
    last = now;
    lastNs = System.nanoTime();
    Set<String> ids = now.nodes().stream().map(Node::getNodeId).collect(Collectors.toSet());
    nodes.keySet().retainAll(ids);
    leases.retain(ids);
    closeGone(now);
    return now;
  }

  /**
   * Closes clients of targets where no member has been for a while: a node may have missed its
   * heartbeats and come back. Whoever still calls there gets a client anew.
   */
  private void closeGone(Members now) {
    long nowNs = System.nanoTime();
    Set<String> there = now.nodes().stream().map(Node::getTarget).collect(Collectors.toSet());
    for (String target : List.copyOf(clients.keySet())) {
      if (there.contains(target)) {
        goneSinceNs.remove(target);
      } else if (nowNs - goneSinceNs.computeIfAbsent(target, t -> nowNs) > GONE_NS) {
        goneSinceNs.remove(target);
        PagesClient gone = clients.remove(target);
        if (gone != null) {
          Thread.ofVirtual().name("kvtier-client-close").start(gone::close);
        }
      }
    }
  }

  /** The members as last heard; has them asked for again when that is a while ago. */
  private Rendezvous recentMembers() {
    boolean old = System.nanoTime() - lastNs >= MEMBERS_AGE_NS;
    if (old && !closed && refreshing.compareAndSet(false, true)) {
      Thread.ofVirtual().name("kvtier-members").start(this::refreshQuietly);
    }
    return last.ranking();
  }

  private void refreshQuietly() {
    try {
      refresh();
    } catch (KvtierException e) {
      // The coordinator is away: the members that were there last serve on.
      lastNs = System.nanoTime();
    } finally {
      refreshing.set(false);
    }
  }

  /** The transport of a member. */
  private PageTransport transport(String nodeId) {
    String target =
        targetIn(last, nodeId)
            .orElseThrow(() ->
                new KvtierException(
                    Code.UNAVAILABLE, "tier node %s has left the cluster".formatted(nodeId)));
    return nodes.computeIfAbsent(nodeId, id -> new NodeTransport(id, target, this));
  }

  @Override
  public void close() {
    closed = true;
    if (replicated != null) {
      replicated.close();
    }
    leases.close();
    clients.values().forEach(PagesClient::close);
  }
}
