package io.kvtier.gpuworker.grpc;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.client.PageTransport;
import io.kvtier.client.PagesClient;
import io.kvtier.v1.Node;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.ConcurrentHashMap;
import java.util.function.Supplier;

/**
 * Chooses the tier node that keeps a session's pages, by rendezvous hashing (Thaler and
 * Ravishankar, 1998) over the members of now: each node leaving moves only its own sessions'
 * successors. Keeps one client a node. Safe for any number of threads.
 */
public final class TierDirectory implements AutoCloseable {
  private final Supplier<List<Node>> tiers;
  private final Duration deadline;
  private final Map<String, PagesClient> clients = new ConcurrentHashMap<>();

  /**
   * A directory.
   *
   * @param tiers the tier nodes whose lease holds
   */
  public TierDirectory(Supplier<List<Node>> tiers, Duration deadline) {
    this.tiers = tiers;
    this.deadline = deadline;
  }

  /**
   * The tier for a new session.
   *
   * @throws KvtierException UNAVAILABLE if there is none
   */
  public PageTransport tierFor(String sessionId) {
    Node chosen = null;
    long best = 0;
    for (Node node : tiers.get()) {
      long weight = mix(sessionId.hashCode() * 31L + node.getNodeId().hashCode());
      if (chosen == null || Long.compareUnsigned(weight, best) > 0) {
        chosen = node;
        best = weight;
      }
    }
    if (chosen == null) {
      throw new KvtierException(
          Code.UNAVAILABLE,
          "no cache tier is registered at the coordinator; start one with: kvtier cache-tier");
    }
    return new NodeTransport(chosen.getNodeId(), chosen.getTarget(), this);
  }

  /** The client of a target. */
  PagesClient client(String target) {
    return clients.computeIfAbsent(target, t -> new PagesClient(t, deadline));
  }

  /** Where a node is now; empty: its lease has run out. */
  Optional<String> targetOf(String nodeId) {
    return tiers.get().stream()
        .filter(node -> node.getNodeId().equals(nodeId))
        .map(Node::getTarget)
        .findFirst();
  }

  private static long mix(long z) {
    z = (z ^ (z >>> 33)) * 0xFF51_AFD7_ED55_8CCDL;
    return z ^ (z >>> 33);
  }

  @Override
  public void close() {
    clients.values().forEach(PagesClient::close);
  }
}
