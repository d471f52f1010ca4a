package io.kvtier.coordinator;

import io.kvtier.coordinator.grpc.ClusterGrpcService;
import io.kvtier.coordinator.grpc.GuardedProfiles;
import io.kvtier.coordinator.grpc.GuardedTables;
import io.kvtier.coordinator.grpc.SessionsGrpcService;
import io.kvtier.coordinator.grpc.WorkerClients;
import io.kvtier.coordinator.membership.MembershipTable;
import io.kvtier.coordinator.metrics.CoordinatorMeters;
import io.kvtier.coordinator.profile.ProfileLimits;
import io.kvtier.coordinator.profile.ProfileTable;
import io.kvtier.coordinator.session.SessionTable;
import io.kvtier.rpc.Endpoint;
import io.micrometer.prometheusmetrics.PrometheusConfig;
import io.micrometer.prometheusmetrics.PrometheusMeterRegistry;
import java.util.List;
import java.util.UUID;
import java.util.concurrent.Executors;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.function.LongSupplier;

/**
 * One running coordinator: builds its parts in order and closes them in reverse. Its tables live in
 * memory only: after a restart no session is open and the nodes register again.
 */
public final class Coordinator implements AutoCloseable {
  private final Endpoint endpoint;
  private final WorkerClients workers;
  private final PrometheusMeterRegistry registry;
  private final String target;
  private final String opsUrl;
  private final AtomicBoolean closed = new AtomicBoolean();

  private Coordinator(Endpoint endpoint, WorkerClients workers, PrometheusMeterRegistry registry) {
    this.endpoint = endpoint;
    this.workers = workers;
    this.registry = registry;
    this.target = endpoint.target();
    this.opsUrl = endpoint.opsUrl();
  }

  /**
   * Starts a coordinator; it serves when this returns.
   *
   * @throws io.kvtier.KvtierException UNAVAILABLE if an address cannot be bound
   */
  public static Coordinator start(CoordinatorConfig config) {
    return start(config, System::nanoTime);
  }

  static Coordinator start(CoordinatorConfig config, LongSupplier nanoClock) {
    PrometheusMeterRegistry registry = new PrometheusMeterRegistry(PrometheusConfig.DEFAULT);
    CoordinatorMeters meters = new CoordinatorMeters(registry);
    GuardedTables tables =
        new GuardedTables(
            new SessionTable(config.sessionsMax()),
            new MembershipTable(MembershipTable.NODES_MAX, config.nodeLease().toNanos()),
            nanoClock);
    GuardedProfiles profiles = new GuardedProfiles(new ProfileTable(ProfileLimits.defaults()));
    meters.observe(
        () -> tables.call((sessions, _, _) -> sessions.count()),
        role -> tables.call((_, members, _) -> members.count(role)),
        role -> tables.call((_, members, _) -> members.bytesUsed(role)));
    WorkerClients workers = new WorkerClients(config.workerDeadline(), meters);
    try {
      Endpoint endpoint =
          Endpoint.start(
              config.endpoint(),
              List.of(
                  new SessionsGrpcService(tables, workers, UUID::randomUUID, meters),
                  new ClusterGrpcService(tables, profiles, workers, config.nodeLease(), meters)),
              registry,
              Executors.newVirtualThreadPerTaskExecutor());
      return new Coordinator(endpoint, workers, registry);
    } catch (RuntimeException e) {
      workers.close();
      registry.close();
      throw e;
    }
  }

  /** The gRPC target, host:port; still told after {@link #close}. */
  public String target() {
    return target;
  }

  /** The address of the metrics and health pages, http://host:port. */
  public String opsUrl() {
    return opsUrl;
  }

  /** Stops serving, then frees what served; calls in progress get a few seconds. */
  @Override
  public void close() {
    if (closed.compareAndSet(false, true)) {
      try (workers;
          endpoint) {
        // Closed in reverse order, each even if another fails.
      } finally {
        registry.close();
      }
    }
  }
}
