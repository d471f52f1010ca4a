package io.kvtier.coordinator.grpc;

import static io.kvtier.KvtierException.requireInRange;

import io.grpc.stub.StreamObserver;
import io.kvtier.KvtierException;
import io.kvtier.coordinator.metrics.CoordinatorMeters;
import io.kvtier.coordinator.plan.Curves;
import io.kvtier.coordinator.plan.PlanInputs;
import io.kvtier.coordinator.plan.Planner;
import io.kvtier.coordinator.plan.TailorPlanner;
import io.kvtier.coordinator.profile.ModelKey;
import io.kvtier.coordinator.profile.ProfileTable;
import io.kvtier.page.PageLayout;
import io.kvtier.v1.ClusterGrpc.ClusterImplBase;
import io.kvtier.v1.Command;
import io.kvtier.v1.DrainRequest;
import io.kvtier.v1.DrainResponse;
import io.kvtier.v1.HeartbeatRequest;
import io.kvtier.v1.HeartbeatResponse;
import io.kvtier.v1.MakePlanRequest;
import io.kvtier.v1.MembershipRequest;
import io.kvtier.v1.MembershipResponse;
import io.kvtier.v1.Node;
import io.kvtier.v1.NodeState;
import io.kvtier.v1.Plan;
import io.kvtier.v1.PlanMode;
import io.kvtier.v1.ProfilesRequest;
import io.kvtier.v1.ProfilesResponse;
import io.kvtier.v1.RegisterRequest;
import io.kvtier.v1.RegisterResponse;
import io.kvtier.v1.Role;
import io.kvtier.v1.Session;
import io.kvtier.v1.SessionRecord;
import io.kvtier.v1.SessionRef;
import io.kvtier.v1.SetNodeState;
import io.kvtier.v1.SetPlan;
import java.time.Duration;
import java.util.logging.Level;
import java.util.logging.Logger;

/** The Cluster service (cluster.proto). No handler blocks on workers or tiers but Drain. */
public final class ClusterGrpcService extends ClusterImplBase {
  private static final int QUERIES_MAX = 64;
  private static final int IDLE_SESSIONS_MAX = 256;
  private static final Logger LOG = Logger.getLogger(ClusterGrpcService.class.getName());

  private final Lead lead;
  private final IdleSessions idle;
  private final WorkerClients workers;
  private final long leaseMs;
  private final CoordinatorMeters meters;
  private final Replies replies;

  public ClusterGrpcService(
      Lead lead,
      IdleSessions idle,
      WorkerClients workers,
      Duration nodeLease,
      CoordinatorMeters meters) {
    this.lead = lead;
    this.idle = idle;
    this.workers = workers;
    this.leaseMs = nodeLease.toMillis();
    this.meters = meters;
    this.replies = new Replies(meters);
  }

  @Override
  public void register(RegisterRequest request, StreamObserver<RegisterResponse> observer) {
    replies.answer(observer, () -> register(request));
  }

  @Override
  public void heartbeat(HeartbeatRequest request, StreamObserver<HeartbeatResponse> observer) {
    replies.answer(observer, () -> heartbeat(request));
  }

  @Override
  public void membership(MembershipRequest request, StreamObserver<MembershipResponse> observer) {
    replies.answer(observer, this::membership);
  }

  @Override
  public void drain(DrainRequest request, StreamObserver<DrainResponse> observer) {
    replies.answer(observer, () -> drain(request));
  }

  @Override
  public void makePlan(MakePlanRequest request, StreamObserver<Plan> observer) {
    replies.answer(observer, () -> makePlan(request));
  }

  @Override
  public void profiles(ProfilesRequest request, StreamObserver<ProfilesResponse> observer) {
    replies.answer(observer, () -> ProfileReplies.of(request, lead));
  }

  private RegisterResponse register(RegisterRequest request) {
    if (!request.hasNode()) {
      throw KvtierException.invalid("node is absent; it is required");
    }
    Node node = request.getNode();
    long epoch = lead.register(node);
    workers.wake(node.getTarget());
    LOG.log(
        Level.INFO,
        "node {0} at {1} joined: {2}",
        new Object[] {node.getNodeId(), node.getTarget(), node.getRole()});
    return RegisterResponse.newBuilder().setMembershipEpoch(epoch).setLeaseMs(leaseMs).build();
  }

  private HeartbeatResponse heartbeat(HeartbeatRequest request) {
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

  private MembershipResponse membership() {
    return lead.call(view ->
        MembershipResponse.newBuilder()
            .setMembershipEpoch(view.state().nodes().epoch())
            .addAllNodes(view.state().nodes().nodes())
            .build());
  }

  private DrainResponse drain(DrainRequest request) {
    NodeState state =
        request.getUndo() ? NodeState.NODE_STATE_ACTIVE : NodeState.NODE_STATE_DRAINING;
    Node node = lead.call(view -> view.state().nodes().get(request.getNodeId()));
    var _ =
        lead.submit(
            Command.newBuilder()
                .setSetNodeState(
                    SetNodeState.newBuilder().setNodeId(node.getNodeId()).setState(state)));
    if (request.getUndo() || node.getRole() != Role.ROLE_WORKER) {
      return DrainResponse.getDefaultInstance();
    }
    // Their clients find them gone, resume them, and are given another worker.
    long left =
        lead.call(view -> view.state().sessions().on(node.getTarget())).stream()
            .filter(record -> !workers.detach(record.getSession(), true))
            .count();
    int opening = lead.call(view -> view.reservations().countOn(node.getTarget()));
    return DrainResponse.newBuilder().setSessions((int) left + opening).build();
  }

  /** Plans outside the lock: a profile of many heads takes a while. */
  private Plan makePlan(MakePlanRequest request) {
    String id = request.getSessionId();
    long epoch = request.getEpoch();
    SessionRecord record = lead.call(view -> view.state().sessions().get(id, epoch));
    Session session = record.getSession();
    PlanInputs inputs = inputs(request, session);
    if (record.getPlanGiven()) {
      meters.planGiven();
      return session.getPlan();
    }
    ModelKey key = ModelKey.of(session.getGeometry(), session.getMode());
    PlanInputs known = refined(key, inputs, request.getQueries());
    Plan plan =
        session.getMode() == PlanMode.PLAN_MODE_TAILORKV
            ? TailorPlanner.plan(known)
            : Planner.plan(known);
    SetPlan.Builder change =
        SetPlan.newBuilder()
            .setSessionId(id)
            .setEpoch(epoch)
            .setPlan(plan)
            .setTokens(inputs.tokens());
    if (!record.getProfiled() && isSample(inputs, request.getQueries())) {
      change.addAllHeads(request.getHeadsList());
    }
    var _ = lead.submit(Command.newBuilder().setSetPlan(change));
    meters.planMade();
    return plan;
  }

  /** Whether a session's own curves are good enough to be planned by, whatever the profile says. */
  private static boolean isSample(PlanInputs inputs, int queries) {
    return !inputs.curves().isEmpty()
        && queries >= ProfileTable.QUERIES_MIN
        && inputs.tokens() >= ProfileTable.TOKENS_MIN;
  }

  /** The inputs with the model's curves where the session's own are missing or too rough. */
  private PlanInputs refined(ModelKey key, PlanInputs inputs, int queries) {
    if (!inputs.curves().isEmpty() && queries >= ProfileTable.QUERIES_MIN) {
      return inputs;
    }
    ProfileTable.Known known = lead.call(view -> view.state().profiles().at(key, inputs.tokens()));
    return known.curves().isEmpty() ? inputs : inputs.withProfile(known.curves(), known.sessions());
  }

  private static PlanInputs inputs(MakePlanRequest request, Session session) {
    int tokens =
        (int)
            requireInRange(
                "tokens", Integer.toUnsignedLong(request.getTokens()), 1, session.getTokensMax());
    requireInRange(
        "queries",
        Integer.toUnsignedLong(request.getQueries()),
        request.getHeadsCount() == 0 ? 0 : 1,
        request.getHeadsCount() == 0 ? 0 : QUERIES_MAX);
    return new PlanInputs(
        session.getGeometry(),
        tokens,
        session.getDeviceBytesMax(),
        request.getFixedDeviceBytes(),
        pages(request, tokens),
        Curves.of(request.getHeadsList(), session.getGeometry(), tokens));
  }

  private static int pages(MakePlanRequest request, int tokens) {
    return (int)
        requireInRange(
            "pages", Integer.toUnsignedLong(request.getPages()), 0, tokens / PageLayout.TOKENS);
  }
}
