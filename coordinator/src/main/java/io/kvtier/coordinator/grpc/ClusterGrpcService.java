package io.kvtier.coordinator.grpc;

import static io.kvtier.KvtierException.requireInRange;

import io.grpc.stub.StreamObserver;
import io.kvtier.KvtierException;
import io.kvtier.coordinator.metrics.CoordinatorMeters;
import io.kvtier.coordinator.plan.PlanInputs;
import io.kvtier.coordinator.plan.Planner;
import io.kvtier.coordinator.plan.ResidualCurve;
import io.kvtier.coordinator.plan.TailorPlanner;
import io.kvtier.coordinator.profile.ModelKey;
import io.kvtier.coordinator.profile.ProfileTable;
import io.kvtier.page.PageLayout;
import io.kvtier.rpc.GeometryLimits;
import io.kvtier.rpc.PlanLimits;
import io.kvtier.v1.ClusterGrpc.ClusterImplBase;
import io.kvtier.v1.CurvePoint;
import io.kvtier.v1.Geometry;
import io.kvtier.v1.HeadProfile;
import io.kvtier.v1.HeartbeatRequest;
import io.kvtier.v1.HeartbeatResponse;
import io.kvtier.v1.MakePlanRequest;
import io.kvtier.v1.MembershipRequest;
import io.kvtier.v1.MembershipResponse;
import io.kvtier.v1.Node;
import io.kvtier.v1.Plan;
import io.kvtier.v1.PlanMode;
import io.kvtier.v1.ProfilesRequest;
import io.kvtier.v1.ProfilesResponse;
import io.kvtier.v1.RegisterRequest;
import io.kvtier.v1.RegisterResponse;
import io.kvtier.v1.Session;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.logging.Level;
import java.util.logging.Logger;

/** The Cluster service (cluster.proto). No handler blocks on another process. */
public final class ClusterGrpcService extends ClusterImplBase {
  private static final int QUERIES_MAX = 64;
  private static final Logger LOG = Logger.getLogger(ClusterGrpcService.class.getName());

  private final GuardedTables tables;
  private final GuardedProfiles profiles;
  private final WorkerClients workers;
  private final long leaseMs;
  private final CoordinatorMeters meters;
  private final Replies replies;

  public ClusterGrpcService(
      GuardedTables tables,
      GuardedProfiles profiles,
      WorkerClients workers,
      Duration nodeLease,
      CoordinatorMeters meters) {
    this.tables = tables;
    this.profiles = profiles;
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
  public void makePlan(MakePlanRequest request, StreamObserver<Plan> observer) {
    replies.answer(observer, () -> makePlan(request));
  }

  @Override
  public void profiles(ProfilesRequest request, StreamObserver<ProfilesResponse> observer) {
    replies.answer(observer, () -> ProfileReplies.of(request, profiles));
  }

  private RegisterResponse register(RegisterRequest request) {
    if (!request.hasNode()) {
      throw KvtierException.invalid("node is absent; it is required");
    }
    Node node = request.getNode();
    long epoch =
        tables.call((_, members, nowNs) -> {
          members.register(node, nowNs);
          return members.epoch();
        });
    workers.wake(node.getTarget());
    LOG.log(
        Level.INFO,
        "node {0} at {1} joined: {2}",
        new Object[] {node.getNodeId(), node.getTarget(), node.getRole()});
    return RegisterResponse.newBuilder().setMembershipEpoch(epoch).setLeaseMs(leaseMs).build();
  }

  private HeartbeatResponse heartbeat(HeartbeatRequest request) {
    long epoch =
        tables.call((_, members, nowNs) -> {
          members.heartbeat(
              request.getNodeId(), request.getBytesUsed(), request.getSessions(), nowNs);
          return members.epoch();
        });
    return HeartbeatResponse.newBuilder().setMembershipEpoch(epoch).build();
  }

  private MembershipResponse membership() {
    return tables.call((_, members, _) ->
        MembershipResponse.newBuilder()
            .setMembershipEpoch(members.epoch())
            .addAllNodes(members.nodes())
            .build());
  }

  /** Plans outside the lock: a profile of many heads takes a while. */
  private Plan makePlan(MakePlanRequest request) {
    String id = request.getSessionId();
    long epoch = request.getEpoch();
    Session session = tables.call((sessions, _, _) -> sessions.get(id, epoch));
    PlanInputs inputs = inputs(request, session);
    Optional<Plan> given = tables.call((sessions, _, _) -> sessions.givenPlan(id, epoch));
    if (given.isPresent()) {
      meters.planGiven();
      return given.get();
    }
    ModelKey key = ModelKey.of(session.getGeometry(), session.getMode());
    PlanInputs known = refined(key, inputs, request.getQueries());
    Plan plan =
        session.getMode() == PlanMode.PLAN_MODE_TAILORKV
            ? TailorPlanner.plan(known)
            : Planner.plan(known);
    tables.call((sessions, _, _) -> {
      sessions.setPlan(id, epoch, plan);
      return id;
    });
    if (isSample(inputs, request.getQueries())
        && tables.call((sessions, _, _) -> sessions.markProfiled(id, epoch))) {
      profiles.merge(key, inputs.tokens(), inputs.curves());
    }
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
    ProfileTable.Known known = profiles.at(key, inputs.tokens());
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
        curves(request.getHeadsList(), session.getGeometry(), tokens));
  }

  private static int pages(MakePlanRequest request, int tokens) {
    return (int)
        requireInRange(
            "pages", Integer.toUnsignedLong(request.getPages()), 0, tokens / PageLayout.TOKENS);
  }

  private static List<ResidualCurve> curves(
      List<HeadProfile> profiles, Geometry geometry, int tokens) {
    int heads = GeometryLimits.heads(geometry);
    if (!profiles.isEmpty() && profiles.size() != heads) {
      throw KvtierException.invalid(
          "heads has %d entries; it must have none, or layers x kv_heads = %d x %d = %d",
          profiles.size(), geometry.getLayers(), geometry.getKvHeads(), heads);
    }
    List<ResidualCurve> curves = new ArrayList<>(profiles.size());
    for (int i = 0; i < profiles.size(); i++) {
      HeadProfile profile = profiles.get(i);
      String name = "heads[" + i + "]";
      PlanLimits.requirePlace(name, profile.getLayer(), profile.getKvHead(), i, geometry);
      curves.add(curve(name + ".curve", profile.getCurveList(), tokens));
    }
    return curves;
  }

  private static ResidualCurve curve(String name, List<CurvePoint> points, int tokens) {
    int[] k = points.stream().mapToInt(CurvePoint::getK).toArray();
    float[] residual = new float[k.length];
    for (int i = 0; i < k.length; i++) {
      residual[i] = points.get(i).getResidual();
    }
    return ResidualCurve.of(name, k, residual, tokens);
  }
}
