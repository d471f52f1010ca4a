package io.kvtier.coordinator.membership;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.v1.Node;
import io.kvtier.v1.NodeState;
import io.kvtier.v1.Role;
import java.util.List;
import java.util.Optional;
import java.util.TreeMap;

/**
 * The nodes, as all coordinators agree on them. Not thread-safe: the owner serializes all calls. A
 * refused call changes nothing.
 */
public final class NodeTable {
  /** Nodes a coordinator holds. */
  public static final int NODES_MAX = 1024;

  private final int nodesMax;
  private final TreeMap<String, Node> nodes = new TreeMap<>();
  private long epoch;

  public NodeTable(int nodesMax) {
    this.nodesMax = nodesMax;
  }

  /** Whether a node is known just as it tells of itself. */
  public boolean knows(Node node) {
    Node before = nodes.get(node.getNodeId());
    return before != null && told(before).equals(told(node));
  }

  /**
   * Takes a node in, or replaces what is known of it; it is active. The epoch rises unless the same
   * node was there already, which stays in its state.
   *
   * @throws KvtierException INVALID, or EXHAUSTED if there are too many nodes
   */
  public void register(Node node) {
    NodeLimits.check(node);
    if (knows(node)) {
      return;
    }
    if (!nodes.containsKey(node.getNodeId()) && nodes.size() >= nodesMax) {
      throw new KvtierException(
          Code.EXHAUSTED,
          "%d nodes are registered and at most %d may be; node %s must wait until a lease runs out"
              .formatted(nodes.size(), nodesMax, node.getNodeId()));
    }
    nodes.put(node.getNodeId(), told(node));
    epoch++;
  }

  private static Node told(Node node) {
    return node.toBuilder().clearState().build();
  }

  /** Removes a node; nothing if there is none. */
  public void remove(String nodeId) {
    if (nodes.remove(nodeId) != null) {
      epoch++;
    }
  }

  /**
   * Drains a node, or makes it active. The epoch rises if it was in another state.
   *
   * @throws KvtierException NOT_FOUND
   */
  public void setState(String nodeId, NodeState state) {
    Node before = get(nodeId);
    NodeState kept = state == NodeState.NODE_STATE_DRAINING ? state : NodeState.forNumber(0);
    if (before.getState() != kept) {
      nodes.put(nodeId, before.toBuilder().setState(kept).build());
      epoch++;
    }
  }

  /**
   * Tells a node.
   *
   * @throws KvtierException INVALID or NOT_FOUND
   */
  public Node get(String nodeId) {
    NodeLimits.checkId(nodeId);
    Node node = nodes.get(nodeId);
    if (node == null) {
      throw new KvtierException(
          Code.NOT_FOUND,
          "node %s has no lease; its lease ran out or it never registered: register again"
              .formatted(nodeId));
    }
    return node;
  }

  /** The worker that is reached at a target. */
  public Optional<Node> workerAt(String target) {
    return nodes.values().stream()
        .filter(node -> node.getRole() == Role.ROLE_WORKER && node.getTarget().equals(target))
        .findFirst();
  }

  /** Copies the nodes, by id. */
  public List<Node> nodes() {
    return List.copyOf(nodes.values());
  }

  /** Copies the nodes of a role, by id. */
  public List<Node> nodes(Role role) {
    return nodes.values().stream().filter(node -> node.getRole() == role).toList();
  }

  /** The membership epoch: rises with every change of membership. */
  public long epoch() {
    return epoch;
  }

  /** Forgets all nodes and goes on from a snapshot's epoch. */
  public void restore(long atEpoch) {
    nodes.clear();
    epoch = atEpoch;
  }

  /** Takes a node of a snapshot in. */
  public void restore(Node node) {
    nodes.put(node.getNodeId(), node);
  }
}
