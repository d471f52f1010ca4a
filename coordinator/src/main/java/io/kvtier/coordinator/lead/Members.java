package io.kvtier.coordinator.lead;

import static io.kvtier.KvtierException.requireInRange;

import io.kvtier.KvtierException;
import io.kvtier.v1.Command;
import io.kvtier.v1.DrainRequest;
import io.kvtier.v1.HeartbeatRequest;
import io.kvtier.v1.HeartbeatResponse;
import io.kvtier.v1.MembershipResponse;
import io.kvtier.v1.Node;
import io.kvtier.v1.NodeState;
import io.kvtier.v1.RegisterRequest;
import io.kvtier.v1.Role;
import io.kvtier.v1.SessionRef;
import io.kvtier.v1.SetNodeState;

/** Takes nodes in, hears them and drains them. Thread-safe; only {@link #drain} blocks on them. */
public final class Members {
  private static final int IDLE_SESSIONS_MAX = 256;

  private final Lead lead;
  private final IdleSessions idle;
  private final Workers workers;

  public Members(Lead lead, IdleSessions idle, Workers workers) {
    this.lead = lead;
    this.idle = idle;
    this.workers = workers;
  }

  /**
   * Takes a node in.
   *
   * @return the membership epoch
   * @throws KvtierException INVALID, or EXHAUSTED if there are too many nodes
   */
  public long register(RegisterRequest request) {
    if (!request.hasNode()) {
      throw KvtierException.invalid("node is absent; it is required");
    }
    return lead.register(request.getNode());
  }

  /**
   * Renews a node's lease, and tells which of its idle sessions it must free.
   *
   * @throws KvtierException NOT_FOUND if its lease has run out
   */
  public HeartbeatResponse heartbeat(HeartbeatRequest request) {
    requireInRange("idle_sessions", request.getIdleSessionsCount(), 0, IDLE_SESSIONS_MAX);
    Node node =
        lead.call(view -> {
          Node known = view.state().nodes().get(request.getNodeId());
          view.leases()
              .renew(
                  request.getNodeId(), request.getBytesUsed(), request.getSessions(), view.nowNs());
          return known;
        });
    HeartbeatResponse.Builder response = HeartbeatResponse.newBuilder().setState(node.getState());
    for (SessionRef told : request.getIdleSessionsList()) {
      idle.told(told, node.getTarget()).ifPresent(response::addFreedSessions);
    }
    return response.setMembershipEpoch(lead.call(view -> view.state().nodes().epoch())).build();
  }

  /** Tells the nodes whose lease holds. */
  public MembershipResponse membership() {
    return lead.call(view ->
        MembershipResponse.newBuilder()
            .setMembershipEpoch(view.state().nodes().epoch())
            .addAllNodes(view.state().nodes().nodes())
            .build());
  }

  /**
   * Drains a node, or makes it active again.
   *
   * @return sessions that a worker still has, or is about to get
   */
  public int drain(DrainRequest request) {
    NodeState state =
        request.getUndo() ? NodeState.NODE_STATE_ACTIVE : NodeState.NODE_STATE_DRAINING;
    Node node = lead.call(view -> view.state().nodes().get(request.getNodeId()));
    var _ =
        lead.submit(
            Command.newBuilder()
                .setSetNodeState(
                    SetNodeState.newBuilder().setNodeId(node.getNodeId()).setState(state)));
    if (request.getUndo() || node.getRole() != Role.ROLE_WORKER) {
      return 0;
    }
    // Their clients find them gone, resume them, and are given another worker.
    long left =
        lead.call(view -> view.state().sessions().on(node.getTarget())).stream()
            .filter(record -> !workers.detach(record.getSession(), true))
            .count();
    int opening = lead.call(view -> view.reservations().countOn(node.getTarget()));
    return (int) left + opening;
  }
}
