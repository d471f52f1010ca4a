package io.kvtier.integration;

import io.grpc.ManagedChannel;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.StreamObserver;
import io.kvtier.rpc.Channels;
import io.kvtier.rpc.Endpoint;
import io.kvtier.rpc.EndpointConfig;
import io.kvtier.v1.AttachRequest;
import io.kvtier.v1.AttachResponse;
import io.kvtier.v1.AttentionGrpc;
import io.kvtier.v1.CloseRequest;
import io.kvtier.v1.CloseResponse;
import io.kvtier.v1.ClusterGrpc;
import io.kvtier.v1.DetachRequest;
import io.kvtier.v1.ForkRequest;
import io.kvtier.v1.GetSessionRequest;
import io.kvtier.v1.MembershipRequest;
import io.kvtier.v1.Node;
import io.kvtier.v1.OpenRequest;
import io.kvtier.v1.ResumeRequest;
import io.kvtier.v1.Role;
import io.kvtier.v1.Session;
import io.kvtier.v1.SessionsGrpc;
import io.micrometer.prometheusmetrics.PrometheusConfig;
import io.micrometer.prometheusmetrics.PrometheusMeterRegistry;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;

/**
 * What a worker and a client need of a coordinator to bring sessions back, and no more, in front of
 * a real one: it remembers sessions, and on Resume attaches them where they are, or else at a
 * member that takes them. So the two are tested by themselves.
 */
final class StandInSessions extends SessionsGrpc.SessionsImplBase implements AutoCloseable {
  private static final int PROBE_MS = 500;

  private final Map<String, Session> sessions = new HashMap<>();
  private final Endpoint endpoint;
  private ManagedChannel coordinator;

  StandInSessions(String coordinatorTarget) {
    this.coordinator = Channels.open(coordinatorTarget);
    this.endpoint =
        Endpoint.start(
            EndpointConfig.loopback(),
            List.of(this),
            new PrometheusMeterRegistry(PrometheusConfig.DEFAULT),
            Executors.newVirtualThreadPerTaskExecutor());
  }

  String target() {
    return endpoint.target();
  }

  /** Everything behind it was started again. */
  synchronized void follow(String coordinatorTarget) {
    Channels.close(coordinator);
    coordinator = Channels.open(coordinatorTarget);
  }

  private SessionsGrpc.SessionsBlockingStub real() {
    return SessionsGrpc.newBlockingStub(coordinator).withDeadlineAfter(10, TimeUnit.SECONDS);
  }

  private static <T> void answer(StreamObserver<T> responses, T answer) {
    responses.onNext(answer);
    responses.onCompleted();
  }

  @Override
  public synchronized void open(OpenRequest request, StreamObserver<Session> responses) {
    Session opened = real().open(request);
    sessions.put(opened.getSessionId(), opened);
    answer(responses, opened);
  }

  @Override
  public synchronized void fork(ForkRequest request, StreamObserver<Session> responses) {
    Session forked = real().fork(request);
    sessions.put(forked.getSessionId(), forked);
    answer(responses, forked);
  }

  @Override
  public synchronized void get(GetSessionRequest request, StreamObserver<Session> responses) {
    answer(responses, remembered(request.getSessionId()));
  }

  /** The plan is made behind us. */
  private Session remembered(String id) {
    Session known = sessions.get(id);
    if (known == null || known.hasPlan()) {
      return known == null ? Session.getDefaultInstance() : known;
    }
    try {
      Session there = real().get(GetSessionRequest.newBuilder().setSessionId(id).build());
      return there.hasPlan() ? known.toBuilder().setPlan(there.getPlan()).build() : known;
    } catch (StatusRuntimeException e) {
      return known;
    }
  }

  @Override
  public synchronized void resume(ResumeRequest request, StreamObserver<Session> responses) {
    Session known = remembered(request.getSessionId());
    if (known.getEpoch() != request.getEpoch()) {
      responses.onError(Status.FAILED_PRECONDITION.withDescription("stale").asException());
      return;
    }
    Session next = known.toBuilder().setEpoch(known.getEpoch() + 1).clearLayerTokens().build();
    List<String> targets = new ArrayList<>(List.of(known.getWorkerTarget()));
    for (Node node : members()) {
      if (!targets.contains(node.getTarget())) {
        targets.add(node.getTarget());
      }
    }
    StatusRuntimeException refusal = null;
    for (String target : targets) {
      try {
        Session at = next.toBuilder().setWorkerTarget(target).build();
        AttachResponse attached = attach(target, at);
        Session resumed = at.toBuilder().addAllLayerTokens(attached.getLayerTokensList()).build();
        sessions.put(resumed.getSessionId(), resumed);
        answer(responses, resumed);
        return;
      } catch (StatusRuntimeException e) {
        refusal = e;
      }
    }
    responses.onError(refusal);
  }

  private List<Node> members() {
    return ClusterGrpc.newBlockingStub(coordinator)
        .withDeadlineAfter(10, TimeUnit.SECONDS)
        .membership(MembershipRequest.getDefaultInstance())
        .getNodesList()
        .stream()
        .filter(node -> node.getRole() == Role.ROLE_WORKER)
        .toList();
  }

  private static AttachResponse attach(String target, Session session) {
    ManagedChannel channel = Channels.open(target);
    try {
      return AttentionGrpc.newBlockingStub(channel)
          .withDeadlineAfter(10 * PROBE_MS, TimeUnit.MILLISECONDS)
          .attach(AttachRequest.newBuilder().setSession(session).setResume(true).build());
    } finally {
      Channels.close(channel);
    }
  }

  @Override
  public synchronized void close(CloseRequest request, StreamObserver<CloseResponse> responses) {
    Session known = sessions.remove(request.getSessionId());
    if (known != null) {
      ManagedChannel channel = Channels.open(known.getWorkerTarget());
      try {
        var _ =
            AttentionGrpc.newBlockingStub(channel)
                .withDeadlineAfter(10, TimeUnit.SECONDS)
                .detach(
                    DetachRequest.newBuilder()
                        .setSessionId(known.getSessionId())
                        .setEpoch(known.getEpoch())
                        .build());
      } finally {
        Channels.close(channel);
      }
    }
    answer(responses, CloseResponse.getDefaultInstance());
  }

  @Override
  public void close() {
    endpoint.close();
    Channels.close(coordinator);
  }
}
