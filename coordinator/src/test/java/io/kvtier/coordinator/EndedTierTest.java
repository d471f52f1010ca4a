package io.kvtier.coordinator;

import static org.assertj.core.api.Assertions.assertThat;

import io.kvtier.v1.HeartbeatRequest;
import io.kvtier.v1.MembershipRequest;
import io.kvtier.v1.Node;
import io.kvtier.v1.RegisterRequest;
import io.kvtier.v1.Role;
import java.io.IOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** A tier whose process has ended is no member much longer, whatever is left of its lease. */
@Timeout(60)
final class EndedTierTest {
  /** By the cluster's clock: well within a lease. */
  private static final Duration WITHIN = Duration.ofSeconds(5);

  private static final long TURN_NS = Duration.ofMillis(20).toNanos();

  private final LoopbackCluster cluster = new LoopbackCluster(8, Duration.ofSeconds(10));
  private final LoopbackTier ended = new LoopbackTier();
  private final LoopbackTier heard = new LoopbackTier();
  private final LoopbackTier living = new LoopbackTier();

  @AfterEach
  void close() {
    cluster.close();
    ended.close();
    heard.close();
    living.close();
  }

  private void register(String id, String target) {
    Node tier =
        LoopbackCluster.node(id, target).toBuilder().setRole(Role.ROLE_TIER).setInstance(1).build();
    var _ = cluster.cluster().register(RegisterRequest.newBuilder().setNode(tier).build());
  }

  private List<String> members() {
    return cluster
        .cluster()
        .membership(MembershipRequest.getDefaultInstance())
        .getNodesList()
        .stream()
        .map(Node::getNodeId)
        .toList();
  }

  private void beat(String id) {
    var _ = cluster.cluster().heartbeat(HeartbeatRequest.newBuilder().setNodeId(id).build());
  }

  private static String deserted() throws IOException {
    try (ServerSocket socket = new ServerSocket(0, 1, InetAddress.getLoopbackAddress())) {
      return "127.0.0.1:" + socket.getLocalPort();
    }
  }

  @Test
  void onlyATierThatWasWatchedAndIsHeardNoMoreIsRemovedWhenNobodyListensThere() throws Exception {
    register("ended", ended.target());
    register("heard", heard.target());
    register("living", living.target());
    register("never-reached", deserted());
    ended.endWatched();
    heard.endWatched();
    long startNs = cluster.nowNs.get();
    while (members().contains("ended")) {
      if (cluster.nowNs.get() - startNs < WITHIN.toNanos()) {
        cluster.nowNs.addAndGet(TURN_NS);
      }
      beat("heard");
      TimeUnit.MILLISECONDS.sleep(5);
    }
    assertThat(members()).containsExactly("heard", "living", "never-reached");
    // Whoever lives after all joins again, and is not removed for what was before.
    register("ended", ended.target());
    assertThat(members()).contains("ended");
  }
}
