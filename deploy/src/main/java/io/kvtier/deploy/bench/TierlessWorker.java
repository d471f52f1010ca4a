package io.kvtier.deploy.bench;

import com.google.protobuf.ByteString;
import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.client.ClusterMember;
import io.kvtier.client.PageTransport;
import io.kvtier.coordinator.Coordinator;
import io.kvtier.coordinator.CoordinatorConfig;
import io.kvtier.gpuworker.cpu.CpuDevice;
import io.kvtier.gpuworker.grpc.AttentionGrpcService;
import io.kvtier.gpuworker.grpc.CoordinatorPlans;
import io.kvtier.gpuworker.grpc.WorkerMeters;
import io.kvtier.gpuworker.session.PendingBytes;
import io.kvtier.gpuworker.session.SessionLimits;
import io.kvtier.gpuworker.session.SessionTable;
import io.kvtier.gpuworker.trace.StepListener;
import io.kvtier.page.PageKey;
import io.kvtier.rpc.Closing;
import io.kvtier.rpc.Endpoint;
import io.kvtier.rpc.EndpointConfig;
import io.kvtier.v1.Node;
import io.kvtier.v1.Role;
import io.kvtier.v1.SectionsOf;
import io.micrometer.prometheusmetrics.PrometheusConfig;
import io.micrometer.prometheusmetrics.PrometheusMeterRegistry;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.Executors;
import java.util.function.ObjIntConsumer;

/**
 * A coordinator and a worker that offloads nothing: all that serves a session whose heads are
 * resident, but a tier. Its pages are dropped.
 */
final class TierlessWorker implements AutoCloseable {
  private static final Duration TIMEOUT = Duration.ofSeconds(5);
  private static final long PENDING_BYTES = 64L << 20;

  private final Coordinator coordinator;
  private final Closing closing;

  private TierlessWorker(Coordinator coordinator, Closing closing) {
    this.coordinator = coordinator;
    this.closing = closing;
  }

  static TierlessWorker start(long deviceBytes) {
    Closing closing = new Closing();
    try {
      Coordinator coordinator = closing.add(Coordinator.start(CoordinatorConfig.defaults()));
      PrometheusMeterRegistry meters = new PrometheusMeterRegistry(PrometheusConfig.DEFAULT);
      CpuDevice device = closing.add(new CpuDevice(deviceBytes));
      SessionTable sessions =
          closing.add(
              new SessionTable(
                  device,
                  placement -> new Nowhere(),
                  1,
                  new SessionLimits(PENDING_BYTES, TIMEOUT.toNanos()),
                  new PendingBytes(2 * PENDING_BYTES),
                  StepListener.NONE));
      CoordinatorPlans plans =
          closing.add(new CoordinatorPlans(coordinator.target(), TIMEOUT, sessions.rates()));
      Endpoint endpoint =
          closing.add(
              Endpoint.start(
                  EndpointConfig.loopback(),
                  List.of(
                      new AttentionGrpcService(
                          sessions, plans, new WorkerMeters(meters, device, sessions))),
                  meters,
                  Executors.newVirtualThreadPerTaskExecutor()));
      Node node =
          Node.newBuilder()
              .setNodeId("worker-1")
              .setRole(Role.ROLE_WORKER)
              .setTarget(endpoint.target())
              .setBytesMax(deviceBytes)
              .build();
      closing.add(
          ClusterMember.join(coordinator.target(), node, () -> new ClusterMember.Load(0, 0)));
      return new TierlessWorker(coordinator, closing);
    } catch (RuntimeException e) {
      closing.closeAfter(e);
      throw e;
    }
  }

  /** Where clients connect. */
  String target() {
    return coordinator.target();
  }

  @Override
  public void close() {
    closing.close();
  }

  /** Stores nothing, and says that it has. */
  private static final class Nowhere implements PageTransport {
    @Override
    public void put(List<KeyedPage> pages) {}

    @Override
    public void get(List<PageKey> keys, ObjIntConsumer<ByteString> consumer) {
      throw nothing();
    }

    @Override
    public void getSections(List<SectionsOf> wanted, ObjIntConsumer<ByteString> consumer) {
      throw nothing();
    }

    private static KvtierException nothing() {
      return new KvtierException(Code.LOST, "there is no tier; every head must be resident");
    }

    @Override
    public void delete(List<PageKey> keys) {}

    @Override
    public void close() {}
  }
}
