package io.kvtier.client;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.grpc.Status;
import io.grpc.stub.StreamObserver;
import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.rpc.Endpoint;
import io.kvtier.rpc.EndpointConfig;
import io.kvtier.v1.ClusterGrpc.ClusterImplBase;
import io.kvtier.v1.HeartbeatRequest;
import io.kvtier.v1.HeartbeatResponse;
import io.kvtier.v1.MembershipRequest;
import io.kvtier.v1.MembershipResponse;
import io.kvtier.v1.Node;
import io.kvtier.v1.RegisterRequest;
import io.kvtier.v1.RegisterResponse;
import io.kvtier.v1.Role;
import io.micrometer.prometheusmetrics.PrometheusConfig;
import io.micrometer.prometheusmetrics.PrometheusMeterRegistry;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.Executors;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.logging.Handler;
import java.util.logging.Level;
import java.util.logging.LogRecord;
import java.util.logging.Logger;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

final class ClusterMemberTest {
  private static final Node NODE =
      Node.newBuilder()
          .setNodeId("w1")
          .setRole(Role.ROLE_WORKER)
          .setTarget("127.0.0.1:7001")
          .build();

  private final Logger log = Logger.getLogger(ClusterMember.class.getName());
  private final BlockingQueue<LogRecord> records = new LinkedBlockingQueue<>();
  private final Handler handler =
      new Handler() {
        @Override
        public void publish(LogRecord record) {
          records.add(record);
        }

        @Override
        public void flush() {}

        @Override
        public void close() {}
      };

  @BeforeEach
  void listen() {
    log.addHandler(handler);
  }

  @AfterEach
  void leave() {
    log.removeHandler(handler);
  }

  @Test
  void registersThenTellsItsLoad() throws Exception {
    try (LoopbackCoordinator coordinator = new LoopbackCoordinator(0);
        ClusterMember member =
            ClusterMember.join(coordinator.target(), NODE, () -> new ClusterMember.Load(7, 2))) {
      assertThat(coordinator.registered.poll()).isEqualTo(NODE);
      HeartbeatRequest heartbeat = coordinator.heartbeats.poll(20, TimeUnit.SECONDS);
      assertThat(heartbeat)
          .isEqualTo(
              HeartbeatRequest.newBuilder().setNodeId("w1").setBytesUsed(7).setSessions(2).build());
      assertThat(member.members(Role.ROLE_WORKER)).containsExactly(NODE);
      assertThat(member.members(Role.ROLE_TIER)).isEmpty();
    }
  }

  @Test
  void registersAgainWhenItIsNotKnown() throws Exception {
    try (LoopbackCoordinator coordinator = new LoopbackCoordinator(0);
        ClusterMember member =
            ClusterMember.join(coordinator.target(), NODE, () -> new ClusterMember.Load(0, 0))) {
      assertThat(coordinator.registered.poll()).isEqualTo(NODE);
      coordinator.heartbeatRefusal = Status.NOT_FOUND;
      assertThat(coordinator.registered.poll(20, TimeUnit.SECONDS)).isEqualTo(NODE);
      assertThat(coordinator.registered.poll(20, TimeUnit.SECONDS)).isEqualTo(NODE);
      assertThat(member.members(Role.ROLE_WORKER)).containsExactly(NODE);
    }
  }

  @Test
  void outlivesACoordinatorThatGoesAwayAndComesBackAndLogsItOnce() throws Exception {
    LoopbackCoordinator before = new LoopbackCoordinator(0);
    try (ClusterMember member =
        ClusterMember.join(before.target(), NODE, () -> new ClusterMember.Load(0, 0))) {
      before.close();
      LogRecord lost = records.poll(20, TimeUnit.SECONDS);
      assertThat(lost).isNotNull();
      assertThat(lost.getLevel()).isEqualTo(Level.WARNING);

      try (LoopbackCoordinator after = new LoopbackCoordinator(before.port())) {
        after.heartbeatRefusal = Status.NOT_FOUND;
        assertThat(after.registered.poll(20, TimeUnit.SECONDS)).isEqualTo(NODE);
        LogRecord found = records.poll(20, TimeUnit.SECONDS);
        assertThat(found).isNotNull();
        assertThat(found.getLevel()).isEqualTo(Level.INFO);
        assertThat(member.members(Role.ROLE_WORKER)).containsExactly(NODE);
      }
    }
  }

  @Test
  void aLoadThatCannotBeToldCostsNoMembership() throws Exception {
    AtomicInteger calls = new AtomicInteger();
    try (LoopbackCoordinator coordinator = new LoopbackCoordinator(0);
        ClusterMember _ =
            ClusterMember.join(
                coordinator.target(),
                NODE,
                () -> {
                  if (calls.getAndIncrement() == 0) {
                    throw new IllegalStateException("planted");
                  }
                  return new ClusterMember.Load(0, 0);
                })) {
      assertThat(coordinator.heartbeats.poll(20, TimeUnit.SECONDS)).isNotNull();
      assertThat(calls).hasValueGreaterThan(1);
    }
  }

  @Test
  void joiningNobodyEndsWithTheTarget() throws Exception {
    String target;
    try (ServerSocket free = new ServerSocket(0, 1, InetAddress.getLoopbackAddress())) {
      target = "127.0.0.1:" + free.getLocalPort();
    }
    assertThatThrownBy(() ->
            ClusterMember.join(
                target, NODE, () -> new ClusterMember.Load(0, 0), Duration.ofMillis(300)))
        .isInstanceOfSatisfying(
            KvtierException.class, e -> assertThat(e.code()).isEqualTo(Code.UNAVAILABLE))
        .hasMessageContaining("coordinator at " + target)
        .hasMessageContaining("check that it runs");
  }

  @Test
  void aRefusalEndsTheJoinAtOnce() {
    try (LoopbackCoordinator coordinator = new LoopbackCoordinator(0)) {
      coordinator.registerRefusal = Status.RESOURCE_EXHAUSTED.withDescription("too many nodes");
      assertThatThrownBy(() ->
              ClusterMember.join(coordinator.target(), NODE, () -> new ClusterMember.Load(0, 0)))
          .isInstanceOfSatisfying(
              KvtierException.class, e -> assertThat(e.code()).isEqualTo(Code.EXHAUSTED))
          .hasMessageContaining("too many nodes");
    }
  }

  @Test
  void closesTwiceAndEndsItsThread() throws Exception {
    try (LoopbackCoordinator coordinator = new LoopbackCoordinator(0)) {
      BlockingQueue<Thread> threads = new LinkedBlockingQueue<>();
      ClusterMember member =
          ClusterMember.join(
              coordinator.target(),
              NODE,
              () -> {
                threads.add(Thread.currentThread());
                return new ClusterMember.Load(0, 0);
              });
      Thread thread = threads.poll(20, TimeUnit.SECONDS);
      assertThat(thread).isNotNull();
      assertThat(thread.isDaemon()).isTrue();

      member.close();
      member.close();
      assertThat(thread.join(Duration.ofSeconds(20))).isTrue();
      assertThatThrownBy(() -> member.members(Role.ROLE_TIER)).isInstanceOf(KvtierException.class);
    }
  }

  /** Takes every node in with a lease of 30 ms that never runs out, and notes what it is told. */
  private static final class LoopbackCoordinator extends ClusterImplBase implements AutoCloseable {
    final BlockingQueue<Node> registered = new LinkedBlockingQueue<>();
    final BlockingQueue<HeartbeatRequest> heartbeats = new LinkedBlockingQueue<>();
    volatile Status registerRefusal = Status.OK;
    volatile Status heartbeatRefusal = Status.OK;
    private final Endpoint endpoint;
    private final String target;

    LoopbackCoordinator(int port) {
      endpoint =
          Endpoint.start(
              new EndpointConfig(EndpointConfig.LOOPBACK, port, 0),
              List.of(this),
              new PrometheusMeterRegistry(PrometheusConfig.DEFAULT),
              Executors.newVirtualThreadPerTaskExecutor());
      target = endpoint.target();
    }

    String target() {
      return target;
    }

    int port() {
      return Integer.parseInt(target().substring(target().lastIndexOf(':') + 1));
    }

    @Override
    public void register(RegisterRequest request, StreamObserver<RegisterResponse> observer) {
      require(registerRefusal);
      registered.add(request.getNode());
      observer.onNext(RegisterResponse.newBuilder().setLeaseMs(30).build());
      observer.onCompleted();
    }

    @Override
    public void heartbeat(HeartbeatRequest request, StreamObserver<HeartbeatResponse> observer) {
      require(heartbeatRefusal);
      heartbeats.add(request);
      observer.onNext(HeartbeatResponse.getDefaultInstance());
      observer.onCompleted();
    }

    @Override
    public void membership(MembershipRequest request, StreamObserver<MembershipResponse> observer) {
      observer.onNext(MembershipResponse.newBuilder().addNodes(NODE).build());
      observer.onCompleted();
    }

    @Override
    public void close() {
      endpoint.close();
    }

    private static void require(Status status) {
      if (!status.isOk()) {
        throw status.asRuntimeException();
      }
    }
  }
}
