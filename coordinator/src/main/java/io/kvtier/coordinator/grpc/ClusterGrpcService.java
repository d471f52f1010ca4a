package io.kvtier.coordinator.grpc;

import io.grpc.stub.StreamObserver;
import io.kvtier.coordinator.lead.IdleSessions;
import io.kvtier.coordinator.lead.Lead;
import io.kvtier.coordinator.lead.Members;
import io.kvtier.coordinator.lead.Plans;
import io.kvtier.coordinator.metrics.CoordinatorMeters;
import io.kvtier.v1.ClusterGrpc.ClusterImplBase;
import io.kvtier.v1.DrainRequest;
import io.kvtier.v1.DrainResponse;
import io.kvtier.v1.HeartbeatRequest;
import io.kvtier.v1.HeartbeatResponse;
import io.kvtier.v1.MakePlanRequest;
import io.kvtier.v1.MembershipRequest;
import io.kvtier.v1.MembershipResponse;
import io.kvtier.v1.Node;
import io.kvtier.v1.Plan;
import io.kvtier.v1.ProfilesRequest;
import io.kvtier.v1.ProfilesResponse;
import io.kvtier.v1.RegisterRequest;
import io.kvtier.v1.RegisterResponse;
import java.time.Duration;
import java.util.logging.Level;
import java.util.logging.Logger;

/** The Cluster service (cluster.proto). No handler blocks on workers or tiers but Drain. */
public final class ClusterGrpcService extends ClusterImplBase {
  private static final Logger LOG = Logger.getLogger(ClusterGrpcService.class.getName());

  private final Lead lead;
  private final Members members;
  private final Plans plans;
  private final WorkerClients workers;
  private final long leaseMs;
  private final Replies replies;

  public ClusterGrpcService(
      Lead lead,
      IdleSessions idle,
      WorkerClients workers,
      Duration nodeLease,
      CoordinatorMeters meters) {
    this.lead = lead;
    this.members = new Members(lead, idle, workers);
    this.plans = new Plans(lead, meters);
    this.workers = workers;
    this.leaseMs = nodeLease.toMillis();
    this.replies = new Replies(meters);
  }

  @Override
  public void register(RegisterRequest request, StreamObserver<RegisterResponse> observer) {
    replies.answer(observer, () -> register(request));
  }

  @Override
  public void heartbeat(HeartbeatRequest request, StreamObserver<HeartbeatResponse> observer) {
    replies.answer(observer, () -> members.heartbeat(request));
  }

  @Override
  public void membership(MembershipRequest request, StreamObserver<MembershipResponse> observer) {
    replies.answer(observer, members::membership);
  }

  @Override
  public void drain(DrainRequest request, StreamObserver<DrainResponse> observer) {
    replies.answer(observer, () -> drain(request));
  }

  @Override
  public void makePlan(MakePlanRequest request, StreamObserver<Plan> observer) {
    replies.answer(observer, () -> plans.make(request));
  }

  @Override
  public void profiles(ProfilesRequest request, StreamObserver<ProfilesResponse> observer) {
    replies.answer(observer, () -> ProfileReplies.of(request, lead));
  }

  private RegisterResponse register(RegisterRequest request) {
    long epoch = members.register(request);
    Node node = request.getNode();
    workers.wake(node.getTarget());
    LOG.log(
        Level.INFO,
        "node {0} at {1} joined: {2}",
        new Object[] {node.getNodeId(), node.getTarget(), node.getRole()});
    return RegisterResponse.newBuilder().setMembershipEpoch(epoch).setLeaseMs(leaseMs).build();
  }

  private DrainResponse drain(DrainRequest request) {
    return DrainResponse.newBuilder().setSessions(members.drain(request)).build();
  }
}
