package io.kvtier.coordinator.membership;

import static io.kvtier.KvtierException.requireInRange;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.v1.Node;
import io.kvtier.v1.Role;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.Optional;
import java.util.TreeMap;
import java.util.function.Predicate;
import java.util.function.ToIntFunction;

/**
 * The nodes whose lease holds. A lease is renewed by registration and by each heartbeat, and has
 * run out once {@code leaseNs} have passed since; times are those of one monotonic clock and may
 * overflow. Not thread-safe: the owner serializes all calls. A refused call changes nothing.
 */
public final class MembershipTable {
  /** Nodes a coordinator holds. */
  public static final int NODES_MAX = 1024;

  /** What a node last told of itself; nothing until its first heartbeat. */
  private record Member(Node node, long renewedNs, long bytesUsed, int sessions) {}

  private final int nodesMax;
  private final long leaseNs;
  private final TreeMap<String, Member> members = new TreeMap<>();
  private long epoch;

  public MembershipTable(int nodesMax, long leaseNs) {
    this.nodesMax = nodesMax;
    this.leaseNs = leaseNs;
  }

  /**
   * Takes a node in, or replaces what is known of it. The epoch rises unless the same node was
   * there already.
   *
   * @throws KvtierException INVALID, or EXHAUSTED if there are too many nodes
   */
  public void register(Node node, long nowNs) {
    NodeLimits.check(node);
    Member before = members.get(node.getNodeId());
    if (before == null && members.size() >= nodesMax) {
      throw new KvtierException(
          Code.EXHAUSTED,
          "%d nodes are registered and at most %d may be; node %s must wait until a lease runs out"
              .formatted(members.size(), nodesMax, node.getNodeId()));
    }
    members.put(node.getNodeId(), new Member(node, nowNs, 0, 0));
    if (before == null || !before.node.equals(node)) {
      epoch++;
    }
  }

  /**
   * Renews a node's lease.
   *
   * @param bytesUsed of the node's bytes_max, as it counts them
   * @param sessions sessions attached, as the node counts them
   * @throws KvtierException INVALID, or NOT_FOUND if the node has no lease
   */
  public void heartbeat(String nodeId, long bytesUsed, int sessions, long nowNs) {
    NodeLimits.checkId(nodeId);
    NodeLimits.checkBytes("bytes_used", bytesUsed);
    requireInRange("sessions", Integer.toUnsignedLong(sessions), 0, Integer.MAX_VALUE);
    Member member = members.get(nodeId);
    if (member == null || expired(member, nowNs)) {
      throw new KvtierException(
          Code.NOT_FOUND,
          "node %s has no lease; its lease ran out or it never registered: register again"
              .formatted(nodeId));
    }
    members.put(nodeId, new Member(member.node, nowNs, bytesUsed, sessions));
  }

  /**
   * Removes the nodes whose lease has run out.
   *
   * @return the nodes that were removed, by id
   */
  public List<Node> expire(long nowNs) {
    List<Node> lost = new ArrayList<>();
    members
        .values()
        .removeIf(member -> {
          boolean expired = expired(member, nowNs);
          if (expired) {
            lost.add(member.node);
          }
          return expired;
        });
    epoch += lost.size();
    return lost;
  }

  /**
   * Chooses the worker with the fewest sessions, then the lowest id. A worker's count is the larger
   * of what is known here and what it last told: its own count lags behind, but knows of sessions
   * that an earlier coordinator opened.
   *
   * @param sessionsOn counts the sessions known here by a worker's target
   * @param eligible tells which targets may be chosen
   */
  public Optional<Node> leastLoadedWorker(
      ToIntFunction<String> sessionsOn, Predicate<String> eligible) {
    // The map is ordered by id and min keeps the first of equals.
    return members.values().stream()
        .filter(member -> member.node.getRole() == Role.ROLE_WORKER)
        .filter(member -> eligible.test(member.node.getTarget()))
        .min(
            Comparator.comparingInt(member ->
                Math.max(member.sessions, sessionsOn.applyAsInt(member.node.getTarget()))))
        .map(Member::node);
  }

  /** Copies the nodes, by id. */
  public List<Node> nodes() {
    return members.values().stream().map(Member::node).toList();
  }

  /** Copies the nodes of a role, by id. */
  public List<Node> nodes(Role role) {
    return nodes().stream().filter(node -> node.getRole() == role).toList();
  }

  /** Counts the nodes of a role. */
  public int count(Role role) {
    return Math.toIntExact(members.values().stream().filter(m -> m.node.getRole() == role).count());
  }

  /** Sums the bytes in use of a role's nodes, as they last told. */
  public double bytesUsed(Role role) {
    return members.values().stream()
        .filter(m -> m.node.getRole() == role)
        .mapToDouble(Member::bytesUsed)
        .sum();
  }

  /** The membership epoch: rises with every change of membership. */
  public long epoch() {
    return epoch;
  }

  private boolean expired(Member member, long nowNs) {
    return nowNs - member.renewedNs >= leaseNs;
  }
}
