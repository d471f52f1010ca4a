package io.kvtier.coordinator;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.kvtier.KvtierException;
import io.kvtier.client.ClusterMember;
import io.kvtier.rpc.EndpointConfig;
import io.kvtier.v1.Node;
import io.kvtier.v1.Role;
import java.time.Duration;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;

/** The client's membership against the real coordinator. */
final class ClusterMemberIT {
  private static final Node WORKER = LoopbackCluster.node("w1", "127.0.0.1:7001");
  private static final Node TIER =
      LoopbackCluster.node("t1", "127.0.0.1:7002").toBuilder().setRole(Role.ROLE_TIER).build();

  /** Released once a heartbeat is about to be sent. */
  private final Semaphore heartbeats = new Semaphore(0);

  @Test
  void membersSeeEachOtherByRole() {
    try (Coordinator coordinator = Coordinator.start(CoordinatorConfig.defaults());
        ClusterMember worker = join(coordinator, WORKER);
        ClusterMember tier = join(coordinator, TIER)) {
      assertThat(worker.members(Role.ROLE_TIER)).containsExactly(TIER);
      assertThat(tier.members(Role.ROLE_WORKER)).containsExactly(WORKER);
    }
  }

  @Test
  void heartbeatsOutliveTheLease() throws Exception {
    Duration lease = Duration.ofMillis(1500);
    try (Coordinator coordinator = Coordinator.start(config(0, lease));
        ClusterMember worker = join(coordinator, WORKER)) {
      // The seventh starts when two leases have passed since joining.
      assertThat(heartbeats.tryAcquire(7, 20, TimeUnit.SECONDS)).isTrue();
      assertThat(worker.members(Role.ROLE_WORKER)).containsExactly(WORKER);
    }
  }

  @Test
  void aMemberReturnsToACoordinatorThatForgotIt() throws Exception {
    Coordinator before = Coordinator.start(config(0, Duration.ofMillis(300)));
    String target = before.target();
    int port = Integer.parseInt(target.substring(target.lastIndexOf(':') + 1));
    try (ClusterMember worker = join(before, WORKER)) {
      before.close();
      assertThatThrownBy(() -> worker.members(Role.ROLE_WORKER))
          .isInstanceOf(KvtierException.class)
          .hasMessageContaining(target);

      try (Coordinator after = Coordinator.start(config(port, Duration.ofMillis(1500)));
          ClusterMember observer = join(after, TIER)) {
        int tries = 0;
        while (observer.members(Role.ROLE_WORKER).isEmpty()) {
          // It may have registered since; the next heartbeat is the latest chance to.
          assertThat(heartbeats.tryAcquire(20, TimeUnit.SECONDS)).isTrue();
          assertThat(tries++).isLessThan(10_000);
        }
        assertThat(observer.members(Role.ROLE_WORKER)).containsExactly(WORKER);
      }
    }
  }

  @Test
  void aRefusedNodeDoesNotTryAgain() {
    try (Coordinator coordinator = Coordinator.start(CoordinatorConfig.defaults())) {
      Node wrong = WORKER.toBuilder().setNodeId("no spaces").build();
      assertThatThrownBy(() -> join(coordinator, wrong))
          .isInstanceOfSatisfying(
              KvtierException.class,
              e -> assertThat(e.code()).isEqualTo(KvtierException.Code.INVALID))
          .hasMessageContaining("no spaces");
    }
  }

  private ClusterMember join(Coordinator coordinator, Node node) {
    return ClusterMember.join(
        coordinator.target(),
        node,
        () -> {
          if (node.equals(WORKER)) {
            heartbeats.release();
          }
          return new ClusterMember.Load(1, 0);
        });
  }

  private static CoordinatorConfig config(int port, Duration lease) {
    return new CoordinatorConfig(
        new EndpointConfig(EndpointConfig.LOOPBACK, port, 0), 8, lease, Duration.ofSeconds(1));
  }
}
