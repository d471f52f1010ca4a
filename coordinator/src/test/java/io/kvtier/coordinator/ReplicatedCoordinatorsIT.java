package io.kvtier.coordinator;

import static io.kvtier.coordinator.LoopbackCluster.openRequest;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.grpc.ManagedChannel;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.kvtier.client.ClusterMember;
import io.kvtier.client.Coordinators;
import io.kvtier.coordinator.ReplicationConfig.Peer;
import io.kvtier.rpc.Channels;
import io.kvtier.rpc.EndpointConfig;
import io.kvtier.rpc.LeaderTrailer;
import io.kvtier.v1.GetSessionRequest;
import io.kvtier.v1.ListSessionsRequest;
import io.kvtier.v1.OpenRequest;
import io.kvtier.v1.Session;
import io.kvtier.v1.SessionChange;
import io.kvtier.v1.SessionChangeKind;
import io.kvtier.v1.SessionsGrpc;
import io.kvtier.v1.SessionsGrpc.SessionsBlockingStub;
import io.kvtier.v1.WatchSessionsRequest;
import io.kvtier.v1.WatchSessionsResponse;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.function.Function;
import java.util.stream.Collectors;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** Three coordinators in this process, of which one leads and may be lost. */
@Timeout(value = 150, unit = TimeUnit.SECONDS)
final class ReplicatedCoordinatorsIT {
  private static final Duration TIMEOUT = Duration.ofSeconds(30);

  @TempDir Path data;

  private final List<Peer> peers = new ArrayList<>();
  private final List<Coordinator> running = new ArrayList<>();
  private final LoopbackWorker worker = new LoopbackWorker();
  private Coordinators client;
  private ClusterMember member;

  @BeforeEach
  void start() throws Exception {
    for (int i = 0; i < 3; i++) {
      peers.add(new Peer("c" + i, "127.0.0.1", FreePorts.next(), FreePorts.next()));
    }
    for (Peer peer : peers) {
      running.add(start(peer));
    }
    String targets = peers.stream().map(Peer::target).collect(Collectors.joining(","));
    client = Coordinators.at(targets);
    member =
        ClusterMember.join(
            targets,
            LoopbackCluster.node("w1", worker.target()),
            () -> new ClusterMember.Load(0, worker.attached.size()),
            TIMEOUT);
  }

  private Coordinator start(Peer peer) {
    return Coordinator.start(
        CoordinatorConfig.defaults()
            .withEndpoint(new EndpointConfig(peer.host(), peer.grpcPort(), 0))
            .withReplication(new ReplicationConfig(peer.id(), peers, data.resolve(peer.id()))));
  }

  @AfterEach
  void close() {
    member.close();
    client.close();
    running.forEach(Coordinator::close);
    worker.close();
  }

  private <R> R call(Function<SessionsBlockingStub, R> call) {
    return client.call(SessionsGrpc::newBlockingStub, TIMEOUT, call);
  }

  private List<Session> list() {
    return call(stub -> stub.list(ListSessionsRequest.getDefaultInstance())).getSessionsList();
  }

  /** The leader by its gRPC target, as each follower names it. */
  private Coordinator leader() {
    List<Coordinator> leaders = new ArrayList<>();
    for (Coordinator each : running) {
      ManagedChannel channel = Channels.open(each.target());
      try {
        var _ =
            SessionsGrpc.newBlockingStub(channel)
                .withDeadlineAfter(10, TimeUnit.SECONDS)
                .list(ListSessionsRequest.getDefaultInstance());
        leaders.add(each);
      } catch (StatusRuntimeException e) {
        assertThat(e.getStatus().getCode()).isEqualTo(Status.Code.UNAVAILABLE);
        assertThat(LeaderTrailer.of(e)).isPresent();
      } finally {
        Channels.close(channel);
      }
    }
    assertThat(leaders).hasSize(1);
    return leaders.getFirst();
  }

  @Test
  void theNextLeaderHasEverySessionAndEveryAnswer() {
    OpenRequest request = openRequest().toBuilder().setRequestId("open-1").build();
    Session open = call(stub -> stub.open(request));
    Coordinator first = leader();
    for (int i = 0; i < 20; i++) {
      var _ = call(stub -> stub.open(openRequest()));
    }
    List<Session> before = list();

    first.close();
    running.remove(first);
    long lostNs = System.nanoTime();
    List<Session> after = list();
    System.out.printf(
        "without service for %.0f ms after the leader was closed%n",
        (System.nanoTime() - lostNs) / 1e6);

    assertThat(after).isEqualTo(before).hasSize(21);
    // A request that the former leader has answered is not done twice.
    Session again = call(stub -> stub.open(request));
    assertThat(again).isEqualTo(open);
    assertThat(list()).hasSize(21);
    // The worker has not been heard by the new leader, and yet is a member.
    assertThat(call(stub -> stub.open(openRequest())).getWorkerTarget()).isEqualTo(worker.target());
    assertThat(leader().target()).isNotEqualTo(first.target());
  }

  @Test
  void withoutAMajorityNothingIsDoneAndAfterItEverythingIsThere() {
    Session open = call(stub -> stub.open(openRequest()));
    Coordinator first = leader();
    List<Coordinator> others = running.stream().filter(each -> each != first).toList();
    for (Coordinator other : others) {
      other.close();
      running.remove(other);
    }
    ManagedChannel alone = Channels.open(first.target());
    try {
      assertThatThrownBy(() ->
              SessionsGrpc.newBlockingStub(alone)
                  .withDeadlineAfter(20, TimeUnit.SECONDS)
                  .open(openRequest()))
          .isInstanceOfSatisfying(
              StatusRuntimeException.class,
              e -> assertThat(e.getStatus().getCode()).isEqualTo(Status.Code.UNAVAILABLE));
    } finally {
      Channels.close(alone);
    }
    for (Peer peer : peers) {
      if (!peer.target().equals(first.target())) {
        running.add(start(peer));
      }
    }
    GetSessionRequest get =
        GetSessionRequest.newBuilder().setSessionId(open.getSessionId()).build();
    Session known = call(stub -> stub.get(get));
    assertThat(known).isEqualTo(open);
  }

  @Test
  void aWatchGoesOnAtTheNextLeaderWithoutAGap() {
    Coordinator first = leader();
    WatchSessionsResponse last = WatchSessionsResponse.getDefaultInstance();
    List<SessionChange> told = new ArrayList<>();
    Session open = call(stub -> stub.open(openRequest()));
    ManagedChannel channel = Channels.open(first.target());
    try {
      Iterator<WatchSessionsResponse> watch =
          SessionsGrpc.newBlockingStub(channel)
              .withDeadlineAfter(60, TimeUnit.SECONDS)
              .watch(WatchSessionsRequest.getDefaultInstance());
      last = watch.next();
      assertThat(last.getSnapshotBegins() && last.getSnapshotEnds()).isTrue();
      assertThat(last.getSessionsList()).containsExactly(open);
      var _ = call(stub -> stub.open(openRequest()));
      last = watch.next();
      told.addAll(last.getChangesList());
      first.close();
      running.remove(first);
      assertThatThrownBy(watch::hasNext).isInstanceOf(StatusRuntimeException.class);
    } finally {
      Channels.close(channel);
    }
    var _ = call(stub -> stub.open(openRequest()));
    WatchSessionsRequest goOn =
        WatchSessionsRequest.newBuilder()
            .setInstance(last.getInstance())
            .setSequence(last.getSequence())
            .build();
    WatchSessionsResponse next =
        call(stub -> stub.withDeadlineAfter(30, TimeUnit.SECONDS).watch(goOn).next());

    assertThat(next.getSnapshot()).isFalse();
    told.addAll(next.getChangesList());
    assertThat(told)
        .extracting(SessionChange::getKind)
        .containsExactly(
            SessionChangeKind.SESSION_CHANGE_KIND_OPENED,
            SessionChangeKind.SESSION_CHANGE_KIND_OPENED);
    assertThat(next.getSequence()).isEqualTo(last.getSequence() + 1);
  }
}
