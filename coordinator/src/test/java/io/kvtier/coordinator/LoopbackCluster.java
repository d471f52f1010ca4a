package io.kvtier.coordinator;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.google.protobuf.ByteString;
import io.grpc.ManagedChannel;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.kvtier.rpc.Channels;
import io.kvtier.rpc.EndpointConfig;
import io.kvtier.v1.ClusterGrpc;
import io.kvtier.v1.Dtype;
import io.kvtier.v1.Geometry;
import io.kvtier.v1.ListSessionsRequest;
import io.kvtier.v1.Node;
import io.kvtier.v1.OpenRequest;
import io.kvtier.v1.RegisterRequest;
import io.kvtier.v1.Role;
import io.kvtier.v1.Session;
import io.kvtier.v1.SessionsGrpc;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import org.assertj.core.api.AbstractThrowableAssert;
import org.assertj.core.api.ThrowableAssert.ThrowingCallable;

/** A coordinator on loopback whose time the test sets, and stubs to call it with. */
final class LoopbackCluster implements AutoCloseable {
  static final Duration LEASE = Duration.ofSeconds(15);
  private static final long CALL_DEADLINE_SECONDS = 20;

  final AtomicLong nowNs = new AtomicLong();
  final Coordinator coordinator;
  final ManagedChannel channel;

  LoopbackCluster(int sessionsMax, Duration workerDeadline) {
    coordinator =
        Coordinator.start(
            new CoordinatorConfig(EndpointConfig.loopback(), sessionsMax, LEASE, workerDeadline),
            nowNs::get);
    channel = Channels.open(coordinator.target());
  }

  SessionsGrpc.SessionsBlockingStub sessions() {
    return SessionsGrpc.newBlockingStub(channel)
        .withDeadlineAfter(CALL_DEADLINE_SECONDS, TimeUnit.SECONDS);
  }

  ClusterGrpc.ClusterBlockingStub cluster() {
    return ClusterGrpc.newBlockingStub(channel)
        .withDeadlineAfter(CALL_DEADLINE_SECONDS, TimeUnit.SECONDS);
  }

  List<Session> list() {
    return sessions().list(ListSessionsRequest.getDefaultInstance()).getSessionsList();
  }

  void register(String nodeId, String target) {
    var _ = cluster().register(RegisterRequest.newBuilder().setNode(node(nodeId, target)).build());
  }

  static Node node(String nodeId, String target) {
    return Node.newBuilder()
        .setNodeId(nodeId)
        .setRole(Role.ROLE_WORKER)
        .setTarget(target)
        .setBytesMax(1 << 20)
        .build();
  }

  /** One that Open accepts: 2 layers, 2 KV heads. */
  static OpenRequest openRequest() {
    return OpenRequest.newBuilder()
        .setGeometry(
            Geometry.newBuilder()
                .setLayers(2)
                .setQHeads(4)
                .setKvHeads(2)
                .setHeadDim(64)
                .setKvDtype(Dtype.DTYPE_BF16)
                .setModelFingerprint(ByteString.copyFrom(new byte[16])))
        .setTokensMax(4096)
        .build();
  }

  /** The body of an operations page. */
  String page(String path) throws IOException, InterruptedException {
    try (HttpClient http = HttpClient.newHttpClient()) {
      HttpResponse<String> response =
          http.send(
              HttpRequest.newBuilder(URI.create(coordinator.opsUrl() + path)).build(),
              HttpResponse.BodyHandlers.ofString());
      assertThat(response.statusCode()).isEqualTo(200);
      return response.body();
    }
  }

  static AbstractThrowableAssert<?, ?> refused(Status.Code code, ThrowingCallable call) {
    return assertThatThrownBy(call)
        .isInstanceOfSatisfying(
            StatusRuntimeException.class,
            e -> assertThat(e.getStatus().getCode()).as(e.getMessage()).isEqualTo(code));
  }

  @Override
  public void close() {
    Channels.close(channel);
    coordinator.close();
  }
}
