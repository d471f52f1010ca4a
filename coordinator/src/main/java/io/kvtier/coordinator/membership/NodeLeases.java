package io.kvtier.coordinator.membership;

import static io.kvtier.KvtierException.requireInRange;

import io.kvtier.KvtierException;
import io.kvtier.v1.Node;
import io.kvtier.v1.NodeState;
import io.kvtier.v1.Role;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.function.Predicate;
import java.util.function.ToIntFunction;

/**
 * How long nodes stay without being heard, and what they last told. Only the coordinator that leads
 * keeps leases: one that begins to lead grants each node that it sees a whole one. A lease is
 * renewed by registration and by each heartbeat, and has run out once {@code leaseNs} have passed
 * since; times are those of one monotonic clock and may overflow. Not thread-safe.
 */
public final class NodeLeases {
  /** What a node last told of itself; nothing until its first heartbeat. */
  private record Lease(long renewedNs, long bytesUsed, int sessions) {}

  /** A preferred worker may have so many sessions more than the least loaded one, and a share. */
  private static final int AFFINITY_SESSIONS = 2;

  private static final int AFFINITY_SHARE = 4;

  private final long leaseNs;
  private final Map<String, Lease> leases = new HashMap<>();

  /** Before this time no lease runs out, if it is known: renewals only put that off. */
  private long noneBeforeNs;

  private boolean noneBeforeKnown;

  public NodeLeases(long leaseNs) {
    this.leaseNs = leaseNs;
  }

  /** Grants a node a whole lease. */
  public void grant(String nodeId, long nowNs) {
    leases.put(nodeId, new Lease(nowNs, 0, 0));
  }

  /**
   * Renews the lease of a node that is known and has not lapsed.
   *
   * @param bytesUsed of the node's bytes_max, as it counts them
   * @param sessions sessions attached, as the node counts them
   * @throws KvtierException INVALID
   */
  public void renew(String nodeId, long bytesUsed, int sessions, long nowNs) {
    NodeLimits.checkId(nodeId);
    NodeLimits.checkBytes("bytes_used", bytesUsed);
    requireInRange("sessions", Integer.toUnsignedLong(sessions), 0, Integer.MAX_VALUE);
    leases.put(nodeId, new Lease(nowNs, bytesUsed, sessions));
  }

  /**
   * Whether a lease may have run out; if not, {@link #lapsed} would find none. Cheap, as it is
   * asked with each access.
   */
  public boolean mayHaveLapsed(long nowNs) {
    return !noneBeforeKnown || nowNs - noneBeforeNs >= 0;
  }

  /** The nodes whose lease has run out, in their order; those that are seen first get one. */
  public List<Node> lapsed(List<Node> nodes, long nowNs) {
    List<Node> lapsed = new ArrayList<>();
    long leastLeftNs = leaseNs;
    for (Node node : nodes) {
      Lease lease = leases.computeIfAbsent(node.getNodeId(), _ -> new Lease(nowNs, 0, 0));
      long leftNs = leaseNs - (nowNs - lease.renewedNs);
      leastLeftNs = Math.min(leastLeftNs, leftNs);
      if (leftNs <= 0) {
        lapsed.add(node);
      }
    }
    noneBeforeKnown = true;
    noneBeforeNs = nowNs + leastLeftNs;
    return lapsed;
  }

  /** How long a node has not been heard of; 0 for one that is not known. */
  public long unheardNs(String nodeId, long nowNs) {
    Lease lease = leases.get(nodeId);
    return lease == null ? 0 : nowNs - lease.renewedNs;
  }

  /** Forgets a node. */
  public void forget(String nodeId) {
    leases.remove(nodeId);
  }

  /** Forgets all nodes, when another coordinator has led meanwhile. */
  public void clear() {
    leases.clear();
    noneBeforeKnown = false;
  }

  /**
   * Chooses the worker with the fewest sessions, then the first; but one that is preferred if it
   * has not many more. A worker's count is the larger of what is known here and what it last told:
   * its own count lags behind, but knows of sessions that an earlier coordinator opened.
   *
   * @param nodes those whose lease holds
   * @param sessionsOn counts the sessions known here by a worker's target
   * @param eligible tells which workers may be chosen
   * @param preferred tells which of them have the new session's prefix
   */
  public Optional<Node> chooseWorker(
      List<Node> nodes,
      ToIntFunction<String> sessionsOn,
      Predicate<Node> eligible,
      Predicate<Node> preferred) {
    ToIntFunction<Node> load =
        node -> Math.max(sessions(node.getNodeId()), sessionsOn.applyAsInt(node.getTarget()));
    List<Node> workers =
        nodes.stream()
            .filter(node -> node.getRole() == Role.ROLE_WORKER)
            .filter(node -> node.getState() != NodeState.NODE_STATE_DRAINING)
            .filter(eligible)
            .toList();
    // min keeps the first of equals.
    Optional<Node> least = workers.stream().min(Comparator.comparingInt(load));
    if (least.isEmpty()) {
      return least;
    }
    int fewest = load.applyAsInt(least.get());
    int enough = fewest + fewest / AFFINITY_SHARE + AFFINITY_SESSIONS;
    return workers.stream()
        .filter(preferred)
        .min(Comparator.comparingInt(load))
        .filter(node -> load.applyAsInt(node) <= enough)
        .or(() -> least);
  }

  /** Sessions that a node last told of. */
  public int sessions(String nodeId) {
    Lease lease = leases.get(nodeId);
    return lease == null ? 0 : lease.sessions;
  }

  /** Bytes in use that a node last told of. */
  public long bytesUsed(String nodeId) {
    Lease lease = leases.get(nodeId);
    return lease == null ? 0 : lease.bytesUsed;
  }
}
