package io.kvtier.coordinator;

import static io.kvtier.coordinator.LoopbackCluster.openRequest;
import static io.kvtier.coordinator.LoopbackCluster.refused;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.grpc.Status;
import io.grpc.health.v1.HealthCheckRequest;
import io.grpc.health.v1.HealthCheckResponse.ServingStatus;
import io.grpc.health.v1.HealthGrpc;
import io.grpc.reflection.v1.ServerReflectionGrpc;
import io.grpc.reflection.v1.ServerReflectionRequest;
import io.grpc.reflection.v1.ServerReflectionResponse;
import io.grpc.reflection.v1.ServiceResponse;
import io.grpc.stub.StreamObserver;
import io.kvtier.KvtierException;
import io.kvtier.coordinator.metrics.CoordinatorMeter;
import io.kvtier.rpc.EndpointConfig;
import java.time.Duration;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;

final class CoordinatorTest {
  @Test
  void healthReflectionAndPagesAnswer() throws Exception {
    try (LoopbackCluster cluster = new LoopbackCluster(4, Duration.ofSeconds(1))) {
      for (String service : new String[] {"", "kvtier.v1.Sessions", "kvtier.v1.Cluster"}) {
        assertThat(
                HealthGrpc.newBlockingStub(cluster.channel)
                    .withDeadlineAfter(20, TimeUnit.SECONDS)
                    .check(HealthCheckRequest.newBuilder().setService(service).build())
                    .getStatus())
            .isEqualTo(ServingStatus.SERVING);
      }
      assertThat(reflect(cluster).getListServicesResponse().getServiceList())
          .extracting(ServiceResponse::getName)
          .contains("kvtier.v1.Sessions", "kvtier.v1.Cluster", "grpc.health.v1.Health");
      assertThat(cluster.page("/health")).contains("SERVING");
    }
  }

  @Test
  void everyMeterIsOnThePageFromTheStartAndCounts() throws Exception {
    try (LoopbackCluster cluster = new LoopbackCluster(4, Duration.ofSeconds(1));
        LoopbackWorker worker = new LoopbackWorker()) {
      String before = cluster.page("/metrics");
      for (CoordinatorMeter meter : CoordinatorMeter.values()) {
        assertThat(before).contains(meter.id().replace('.', '_'), meter.description());
      }
      refused(Status.Code.UNAVAILABLE, () -> cluster.sessions().open(openRequest()));
      cluster.register("w1", worker.target());
      var _ = cluster.sessions().open(openRequest());

      assertThat(cluster.page("/metrics"))
          .contains("kvtier_coordinator_sessions 1.0")
          .contains("kvtier_coordinator_nodes{role=\"worker\"} 1.0")
          .contains("kvtier_coordinator_nodes{role=\"tier\"} 0.0")
          .contains("kvtier_coordinator_opens_total{kind=\"open\"} 1.0")
          .contains("kvtier_coordinator_refusals_total{code=\"UNAVAILABLE\"} 1.0")
          .contains("kvtier_coordinator_refusals_total{code=\"LOST\"} 0.0");

      cluster.nowNs.addAndGet(LoopbackCluster.LEASE.toNanos());
      assertThat(cluster.page("/metrics"))
          .contains("kvtier_coordinator_nodes{role=\"worker\"} 0.0");
    }
  }

  @Test
  void closesTwiceAndFreesItsPort() {
    Coordinator first = Coordinator.start(CoordinatorConfig.defaults());
    String target = first.target();
    int port = Integer.parseInt(target.substring(target.lastIndexOf(':') + 1));
    CoordinatorConfig samePort =
        new CoordinatorConfig(
            new EndpointConfig(EndpointConfig.LOOPBACK, port, 0),
            1,
            Duration.ofSeconds(1),
            Duration.ofSeconds(1));

    assertThatThrownBy(() -> Coordinator.start(samePort))
        .isInstanceOfSatisfying(
            KvtierException.class,
            e -> assertThat(e.code()).isEqualTo(KvtierException.Code.UNAVAILABLE))
        .hasMessageContaining(String.valueOf(port));
    first.close();
    first.close();
    try (Coordinator second = Coordinator.start(samePort)) {
      assertThat(second.target()).isEqualTo(target);
      assertThat(second.opsUrl()).startsWith("http://127.0.0.1:");
    }
  }

  @Test
  void aConfigurationOutOfItsBoundsIsRefused() {
    CoordinatorConfig defaults = CoordinatorConfig.defaults();
    assertThat(defaults.sessionsMax()).isEqualTo(1024);
    assertThat(defaults.nodeLease()).isEqualTo(Duration.ofSeconds(15));

    Duration second = Duration.ofSeconds(1);
    assertThatThrownBy(() -> config(0, second, second))
        .hasMessage("sessionsMax is 0; it must be 1..65536");
    assertThatThrownBy(() -> config(1, Duration.ZERO, second))
        .hasMessage("nodeLease is PT0S; it must be PT0.01S..PT1H");
    assertThatThrownBy(() -> config(1, second, Duration.ofMinutes(6)))
        .hasMessage("workerDeadline is PT6M; it must be PT0.001S..PT5M");
  }

  private static CoordinatorConfig config(int sessionsMax, Duration lease, Duration deadline) {
    return new CoordinatorConfig(EndpointConfig.loopback(), sessionsMax, lease, deadline);
  }

  private static ServerReflectionResponse reflect(LoopbackCluster cluster) throws Exception {
    CompletableFuture<ServerReflectionResponse> answer = new CompletableFuture<>();
    StreamObserver<ServerReflectionRequest> requests =
        ServerReflectionGrpc.newStub(cluster.channel)
            .withDeadlineAfter(20, TimeUnit.SECONDS)
            .serverReflectionInfo(
                new StreamObserver<>() {
                  @Override
                  public void onNext(ServerReflectionResponse response) {
                    answer.complete(response);
                  }

                  @Override
                  public void onError(Throwable thrown) {
                    answer.completeExceptionally(thrown);
                  }

                  @Override
                  public void onCompleted() {}
                });
    requests.onNext(ServerReflectionRequest.newBuilder().setListServices("").build());
    requests.onCompleted();
    return answer.get(20, TimeUnit.SECONDS);
  }
}
