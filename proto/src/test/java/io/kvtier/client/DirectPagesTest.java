package io.kvtier.client;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.channels.ServerSocketChannel;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

class DirectPagesTest {
  /** As a process that has been stopped does: the kernel goes on to take connections for it. */
  @Test
  @Timeout(value = 30, unit = TimeUnit.SECONDS, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
  void aTierThatTakesAConnectionAndSaysNothingIsWaitedForUntilTheDeadline() throws IOException {
    try (ServerSocketChannel silent = ServerSocketChannel.open()) {
      silent.bind(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0));
      try (DirectPages pages =
          new DirectPages(silent.getLocalAddress(), "the tier", Duration.ofMillis(200))) {
        assertThatThrownBy(() -> pages.contains(List.of()))
            .isInstanceOfSatisfying(
                KvtierException.class, e -> assertThat(e.code()).isEqualTo(Code.DEADLINE))
            .hasMessageContaining("the tier did not answer within PT0.2S");
      }
    }
  }
}
