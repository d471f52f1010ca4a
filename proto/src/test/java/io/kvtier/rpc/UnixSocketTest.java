package io.kvtier.rpc;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.grpc.ManagedChannel;
import io.grpc.health.v1.HealthCheckRequest;
import io.grpc.health.v1.HealthCheckResponse.ServingStatus;
import io.grpc.health.v1.HealthGrpc;
import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.micrometer.prometheusmetrics.PrometheusConfig;
import io.micrometer.prometheusmetrics.PrometheusMeterRegistry;
import java.io.IOException;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.channels.ServerSocketChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.List;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.condition.EnabledOnOs;
import org.junit.jupiter.api.condition.OS;
import org.junit.jupiter.api.io.TempDir;

/** An endpoint on a Unix-domain socket: who may connect, and what becomes of its file. */
@EnabledOnOs(OS.LINUX)
@Timeout(value = 60, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
final class UnixSocketTest {
  @TempDir Path directory;

  private static Endpoint start(Path socket) {
    return Endpoint.start(
        EndpointConfig.loopback().withSocket(socket),
        List.of(),
        new PrometheusMeterRegistry(PrometheusConfig.DEFAULT),
        Executors.newSingleThreadExecutor());
  }

  private static void assertServes(String target) {
    ManagedChannel channel = Channels.open(target);
    try {
      assertThat(
              HealthGrpc.newBlockingStub(channel)
                  .withDeadlineAfter(30, TimeUnit.SECONDS)
                  .check(HealthCheckRequest.getDefaultInstance())
                  .getStatus())
          .isEqualTo(ServingStatus.SERVING);
    } finally {
      Channels.close(channel);
    }
  }

  @Test
  void itServesBesideTcpForThisUserAloneAndLeavesNothing() throws IOException {
    Path socket = directory.resolve("deep/tier.sock");
    try (Endpoint endpoint = start(socket)) {
      assertThat(endpoint.socketTarget()).contains("unix:" + socket);
      assertServes(endpoint.socketTarget().orElseThrow());
      assertServes(endpoint.target());
      assertThat(PosixFilePermissions.toString(Files.getPosixFilePermissions(socket)))
          .isEqualTo("rw-------");
    }
    assertThat(socket.getParent()).isEmptyDirectory();
  }

  @Test
  void aSocketThatNobodyServesIsReplaced() throws IOException {
    Path socket = directory.resolve("stale");
    try (ServerSocketChannel stale = ServerSocketChannel.open(StandardProtocolFamily.UNIX)) {
      stale.bind(UnixDomainSocketAddress.of(socket));
    }
    assertThat(socket).exists();
    try (Endpoint endpoint = start(socket)) {
      assertServes(endpoint.socketTarget().orElseThrow());
    }
  }

  @Test
  void aPathThatIsTakenIsRefusedAndLeftAsItWas() throws IOException {
    Path file = Files.writeString(directory.resolve("file"), "mine");
    assertRefused(file, Code.PRECONDITION, "is no socket");
    assertThat(file).hasContent("mine");
    Path socket = directory.resolve("served");
    try (Endpoint endpoint = start(socket)) {
      assertRefused(socket, Code.PRECONDITION, "in use by another process");
      assertServes(endpoint.socketTarget().orElseThrow());
    }
    assertRefused(directory.resolve("x".repeat(120)), Code.INVALID, "it must have at most");
  }

  private static void assertRefused(Path socket, Code code, String message) {
    assertThatThrownBy(() -> start(socket))
        .isInstanceOfSatisfying(KvtierException.class, e -> assertThat(e.code()).isEqualTo(code))
        .hasMessageContaining(message);
  }
}
