package io.kvtier.coordinator.grpc;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.grpc.ManagedChannel;
import io.kvtier.KvtierException;
import io.kvtier.coordinator.membership.NodeTable;
import org.junit.jupiter.api.Test;

/** No call is made, so nothing needs to listen at these targets. */
final class WorkerChannelsTest {
  @Test
  void aTargetHasOneChannelAndTheOneUnusedLongestGoesFirst() {
    try (WorkerChannels channels = new WorkerChannels(2)) {
      ManagedChannel a = useOnce(channels, "a:1");
      ManagedChannel b = useOnce(channels, "b:1");
      assertThat(useOnce(channels, "a:1")).isSameAs(a);

      ManagedChannel c = useOnce(channels, "c:1");
      assertThat(channels.count()).isEqualTo(2);
      assertThat(b.isShutdown()).isTrue();
      assertThat(a.isShutdown()).isFalse();
      assertThat(c.isShutdown()).isFalse();
    }
  }

  @Test
  void aChannelInUseIsNeverClosedForAnother() {
    try (WorkerChannels channels = new WorkerChannels(1)) {
      try (WorkerChannels.Use a = channels.use("a:1")) {
        assertThatThrownBy(() -> channels.use("b:1"))
            .isInstanceOfSatisfying(
                KvtierException.class,
                e -> assertThat(e.code()).isEqualTo(KvtierException.Code.EXHAUSTED));
        assertThat(a.channel().isShutdown()).isFalse();
      }
      assertThat(useOnce(channels, "b:1").isShutdown()).isFalse();
    }
  }

  /** A coordinator calls all workers at once, and watches all tiers for good. */
  @Test
  void everyNodeThatThereMayBeHasAChannelAtATime() {
    try (WorkerChannels channels = new WorkerChannels(WorkerChannels.CHANNELS_MAX)) {
      for (int node = 0; node < NodeTable.NODES_MAX; node++) {
        assertThat(channels.use("10.0.0.1:" + (1000 + node)).channel().isShutdown()).isFalse();
      }
    }
  }

  @Test
  void closingClosesAllAndRefusesFurtherUse() {
    WorkerChannels channels = new WorkerChannels(2);
    ManagedChannel a = useOnce(channels, "a:1");
    channels.close();
    channels.close();

    assertThat(a.isShutdown()).isTrue();
    assertThatThrownBy(() -> channels.use("a:1")).hasMessageContaining("closing");
  }

  private static ManagedChannel useOnce(WorkerChannels channels, String target) {
    try (WorkerChannels.Use use = channels.use(target)) {
      return use.channel();
    }
  }
}
