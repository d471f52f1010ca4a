package io.kvtier.gpuworker;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.client.ClusterMember;
import io.kvtier.gpuworker.device.AttentionDevice;
import io.kvtier.gpuworker.grpc.AttentionGrpcService;
import io.kvtier.gpuworker.grpc.CoordinatorPlans;
import io.kvtier.gpuworker.grpc.IdleReport;
import io.kvtier.gpuworker.grpc.ReplicaMeters;
import io.kvtier.gpuworker.grpc.TierDirectory;
import io.kvtier.gpuworker.grpc.WorkerMeters;
import io.kvtier.gpuworker.session.PendingBytes;
import io.kvtier.gpuworker.session.SessionLimits;
import io.kvtier.gpuworker.session.SessionTable;
import io.kvtier.gpuworker.trace.StepListener;
import io.kvtier.gpuworker.trace.TraceFile;
import io.kvtier.replica.ReplicaConfig;
import io.kvtier.rpc.Closing;
import io.kvtier.rpc.Endpoint;
import io.kvtier.v1.MembershipResponse;
import io.kvtier.v1.Node;
import io.kvtier.v1.Role;
import io.micrometer.prometheusmetrics.PrometheusConfig;
import io.micrometer.prometheusmetrics.PrometheusMeterRegistry;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.Executors;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.Consumer;

/** A running worker. Built in order, closed in reverse; {@link #close} is idempotent. */
public final class GpuWorker implements AutoCloseable {
  private final Endpoint endpoint;
  private final AttentionDevice device;
  private final Optional<TraceFile> trace;
  private final Closing closing;

  private GpuWorker(
      Endpoint endpoint, AttentionDevice device, Optional<TraceFile> trace, Closing closing) {
    this.endpoint = endpoint;
    this.device = device;
    this.trace = trace;
    this.closing = closing;
  }

  /**
   * Starts a worker and joins the cluster.
   *
   * @throws KvtierException UNAVAILABLE if an address cannot be bound or the coordinator does not
   *     answer
   */
  public static GpuWorker start(GpuWorkerConfig config) {
    return start(config, doing -> {});
  }

  /**
   * Starts a worker and joins the cluster.
   *
   * @param progress hears what the opening of a device that takes seconds is at
   * @throws KvtierException as above, and as {@link Devices#open}
   */
  public static GpuWorker start(GpuWorkerConfig config, Consumer<String> progress) {
    Closing closing = new Closing();
    try {
      PrometheusMeterRegistry meters = new PrometheusMeterRegistry(PrometheusConfig.DEFAULT);
      closing.add(meters::close);
      AttentionDevice device =
          closing.add(Devices.open(config.device(), config.deviceBytesMax(), progress));
      AtomicReference<ClusterMember> member = new AtomicReference<>();
      TierDirectory tiers =
          closing.add(
              new TierDirectory(
                  () -> membershipOf(member),
                  config.tierTimeout(),
                  ReplicaConfig.of(config.replicas(), config.writeAcks(), config.tierTimeout()),
                  new TierDirectory.Lease(
                      "worker:" + config.nodeId(), System.currentTimeMillis(), config.leaseTtl())));
      tiers.replicaCounts().ifPresent(counts -> ReplicaMeters.bind(meters, counts));
      Optional<TraceFile> trace =
          config.trace().map(to -> closing.add(TraceFile.open(to, System.nanoTime())));
      SessionTable sessions =
          closing.add(
              new SessionTable(
                  device,
                  tiers,
                  config.sessionsMax(),
                  new SessionLimits(config.pendingBytesMax(), config.tierTimeout().toNanos()),
                  new PendingBytes(config.pendingBytesTotalMax()),
                  trace.<StepListener>map(file -> file).orElse(StepListener.NONE)));
      CoordinatorPlans plans =
          closing.add(
              new CoordinatorPlans(
                  config.coordinatorTarget(), config.tierTimeout(), sessions.rates()));
      AttentionGrpcService service =
          new AttentionGrpcService(sessions, plans, new WorkerMeters(meters, device, sessions));
      Endpoint endpoint =
          closing.add(
              Endpoint.start(
                  config.endpoint(),
                  List.of(service),
                  meters,
                  Executors.newVirtualThreadPerTaskExecutor()));
      IdleReport idle = new IdleReport(sessions, device.memory()::bytesUsed);
      Node node =
          Node.newBuilder()
              .setNodeId(config.nodeId())
              .setRole(Role.ROLE_WORKER)
              .setTarget(endpoint.target())
              .setBytesMax(config.deviceBytesMax())
              .build();
      member.set(
          closing.add(
              ClusterMember.join(config.coordinatorTarget(), node, idle::load, idle::free)));
      return new GpuWorker(endpoint, device, trace, closing);
    } catch (RuntimeException e) {
      closing.closeAfter(e);
      throw e;
    }
  }

  private static MembershipResponse membershipOf(AtomicReference<ClusterMember> member) {
    ClusterMember joined = member.get();
    if (joined == null) {
      throw new KvtierException(Code.UNAVAILABLE, "the worker has not joined its cluster yet");
    }
    return joined.membership();
  }

  /** The gRPC target, host:port. */
  public String target() {
    return endpoint.target();
  }

  /** The address of the pages, http://host:port. */
  public String opsUrl() {
    return endpoint.opsUrl();
  }

  /** What attention is computed on, one line for people. */
  public String deviceName() {
    return device.name();
  }

  /** Device bytes that sessions hold. */
  public long deviceBytesUsed() {
    return device.memory().bytesUsed();
  }

  /** What was traced and what was not, in a line; complete once the worker is closed. */
  public Optional<String> traceSummary() {
    return trace.map(TraceFile::summary);
  }

  @Override
  public void close() {
    closing.close();
  }
}
