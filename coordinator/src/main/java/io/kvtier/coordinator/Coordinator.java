package io.kvtier.coordinator;

import io.grpc.BindableService;
import io.grpc.ServerInterceptors;
import io.kvtier.coordinator.grpc.ClusterGrpcService;
import io.kvtier.coordinator.grpc.GuardedProfiles;
import io.kvtier.coordinator.grpc.GuardedTables;
import io.kvtier.coordinator.grpc.SessionsGrpcService;
import io.kvtier.coordinator.grpc.TierWatch;
import io.kvtier.coordinator.grpc.WorkerClients;
import io.kvtier.coordinator.membership.MembershipTable;
import io.kvtier.coordinator.metrics.CoordinatorMeters;
import io.kvtier.coordinator.prefix.PrefixDirectory;
import io.kvtier.coordinator.profile.ProfileLimits;
import io.kvtier.coordinator.profile.ProfileTable;
import io.kvtier.coordinator.session.SessionTable;
import io.kvtier.rpc.Closing;
import io.kvtier.rpc.Endpoint;
import io.kvtier.rpc.Tenant;
import io.kvtier.v1.Role;
import io.micrometer.prometheusmetrics.PrometheusConfig;
import io.micrometer.prometheusmetrics.PrometheusMeterRegistry;
import java.util.List;
import java.util.UUID;
import java.util.concurrent.Executors;
import java.util.function.LongSupplier;

/**
 * One running coordinator: builds its parts in order and closes them in reverse. Its tables live in
 * memory only: after a restart no session is open and the nodes register again.
 */
public final class Coordinator implements AutoCloseable {
  private final Closing closing;
  private final String target;
  private final String opsUrl;

  private Coordinator(Endpoint endpoint, Closing closing) {
    this.closing = closing;
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
    Closing closing = new Closing();
    try {
      closing.add(registry::close);
      WorkerClients workers = closing.add(new WorkerClients(config.workerDeadline(), meters));
      TierWatch tiers =
          closing.add(
              new TierWatch(
                  new PrefixDirectory(PrefixDirectory.KEYS_DEFAULT),
                  () -> tables.call((_, members, _) -> members.nodes(Role.ROLE_TIER))));
      meters.observePrefixKeys(tiers::keys);
      SessionsGrpcService sessions =
          new SessionsGrpcService(tables, workers, tiers, UUID::randomUUID, meters);
      Endpoint endpoint =
          closing.add(
              Endpoint.start(
                  config.endpoint(),
                  List.<BindableService>of(
                      () -> ServerInterceptors.intercept(sessions, new Tenant()),
                      new ClusterGrpcService(
                          tables, profiles, workers, config.nodeLease(), meters)),
                  registry,
                  Executors.newVirtualThreadPerTaskExecutor()));
      return new Coordinator(endpoint, closing);
    } catch (RuntimeException e) {
      closing.closeAfter(e);
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
    closing.close();
  }
}
