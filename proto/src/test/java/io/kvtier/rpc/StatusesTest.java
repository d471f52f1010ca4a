package io.kvtier.rpc;

import static org.assertj.core.api.Assertions.assertThat;

import io.grpc.ManagedChannel;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.health.v1.HealthCheckRequest;
import io.grpc.health.v1.HealthGrpc;
import io.kvtier.KvtierException.Code;
import java.io.IOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.nio.channels.ClosedChannelException;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;

/** What callers make of calls that ended. */
class StatusesTest {
  private static Code code(Status status) {
    return Statuses.fromStatus(status.asRuntimeException(), "the peer").code();
  }

  @Test
  void aCallThatItsConnectionTookAlongIsUnavailableAndAPeersFaultIsNot() {
    Status broken = Status.UNKNOWN.withDescription("channel closed");
    assertThat(code(broken.withCause(new ClosedChannelException()))).isEqualTo(Code.UNAVAILABLE);
    assertThat(code(broken)).isEqualTo(Code.INTERNAL);
    assertThat(code(broken.withCause(new IllegalStateException()))).isEqualTo(Code.INTERNAL);
    assertThat(code(Status.UNAVAILABLE)).isEqualTo(Code.UNAVAILABLE);
  }

  @Test
  void aPortWhereNobodyListensIsToldFromOneThatDoesNotAnswer() throws IOException {
    int port;
    try (ServerSocket silent = new ServerSocket(0, 1, InetAddress.getLoopbackAddress())) {
      port = silent.getLocalPort();
      assertThat(Channels.isConnectionRefused(failure(port))).isFalse();
    }
    assertThat(Channels.isConnectionRefused(failure(port))).isTrue();
  }

  private static StatusRuntimeException failure(int port) {
    ManagedChannel channel = Channels.open("127.0.0.1:" + port);
    try {
      var _ =
          HealthGrpc.newBlockingStub(channel)
              .withDeadlineAfter(2, TimeUnit.SECONDS)
              .check(HealthCheckRequest.getDefaultInstance());
      throw new AssertionError("somebody answers");
    } catch (StatusRuntimeException e) {
      return e;
    } finally {
      channel.shutdownNow();
    }
  }
}
