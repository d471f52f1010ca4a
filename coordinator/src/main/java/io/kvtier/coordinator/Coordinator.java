package io.kvtier.coordinator;

import io.grpc.BindableService;
import io.grpc.ServerInterceptors;
import io.kvtier.coordinator.grpc.ClusterGrpcService;
import io.kvtier.coordinator.grpc.Housekeeping;
import io.kvtier.coordinator.grpc.LeaderOnly;
import io.kvtier.coordinator.grpc.PinKeeper;
import io.kvtier.coordinator.grpc.SessionsGrpcService;
import io.kvtier.coordinator.grpc.TierWatch;
import io.kvtier.coordinator.grpc.WorkerClients;
import io.kvtier.coordinator.lead.IdleSessions;
import io.kvtier.coordinator.lead.Lead;
import io.kvtier.coordinator.log.LocalLog;
import io.kvtier.coordinator.log.ReplicatedLog;
import io.kvtier.coordinator.membership.NodeLeases;
import io.kvtier.coordinator.metrics.CoordinatorMeters;
import io.kvtier.coordinator.prefix.PrefixDirectory;
import io.kvtier.coordinator.raft.RaftLog;
import io.kvtier.coordinator.session.Reservations;
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
 * One running coordinator: builds its parts in order and closes them in reverse. Without
 * replication its state lives in memory only: after a restart no session is open and the nodes
 * register again.
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
   * Starts a coordinator; it serves when this returns, though several ones may not have found their
   * leader yet.
   *
   * @throws io.kvtier.KvtierException UNAVAILABLE if an address or the log cannot be used;
   *     PRECONDITION if the log is another cluster's
   */
  public static Coordinator start(CoordinatorConfig config) {
    return start(config, System::nanoTime);
  }

  static Coordinator start(CoordinatorConfig config, LongSupplier nanoClock) {
    PrometheusMeterRegistry registry = new PrometheusMeterRegistry(PrometheusConfig.DEFAULT);
    CoordinatorMeters meters = new CoordinatorMeters(registry);
    Closing closing = new Closing();
    try {
      closing.add(registry::close);
      ReplicatedLog log = closing.add(openLog(config));
      Lead lead =
          new Lead(
              log,
              new Reservations(config.sessionsMax()),
              new NodeLeases(config.nodeLease().toNanos()),
              nanoClock,
              System::currentTimeMillis);
      observe(meters, lead);
      WorkerClients workers = closing.add(new WorkerClients(config.workerDeadline(), meters));
      TierWatch tiers =
          closing.add(
              new TierWatch(
                  new PrefixDirectory(PrefixDirectory.KEYS_DEFAULT),
                  () -> lead.look(view -> view.state().nodes().nodes(Role.ROLE_TIER)),
                  nanoClock));
      meters.observePrefixKeys(tiers::keys);
      PinKeeper pins = closing.add(new PinKeeper(lead, tiers, UUID::randomUUID));
      IdleSessions idle = new IdleSessions(lead, meters);
      SessionsGrpcService sessions =
          new SessionsGrpcService(lead, workers, tiers, pins, UUID::randomUUID, meters);
      ClusterGrpcService cluster =
          new ClusterGrpcService(lead, idle, workers, config.nodeLease(), meters);
      LeaderOnly leaderOnly = new LeaderOnly(lead);
      Endpoint endpoint =
          closing.add(
              Endpoint.start(
                  config.endpoint(),
                  List.<BindableService>of(
                      () -> ServerInterceptors.intercept(sessions, new Tenant(), leaderOnly),
                      () -> ServerInterceptors.intercept(cluster, leaderOnly)),
                  registry,
                  Executors.newVirtualThreadPerTaskExecutor()));
      closing.add(
          new Housekeeping(
              lead,
              "housekeeping",
              List.of(lead::removeLapsed, () -> tiers.removeEnded(lead), idle::expireUnserved)));
      closing.add(new Housekeeping(lead, "pins", List.of(pins::keep)));
      return new Coordinator(endpoint, closing);
    } catch (RuntimeException e) {
      closing.closeAfter(e);
      throw e;
    }
  }

  private static ReplicatedLog openLog(CoordinatorConfig config) {
    return config
        .replication()
        .<ReplicatedLog>map(RaftLog::open)
        .orElseGet(() -> new LocalLog(UUID.randomUUID().getMostSignificantBits()));
  }

  private static void observe(CoordinatorMeters meters, Lead lead) {
    meters.observe(
        () -> lead.call(view -> view.state().sessions().count()),
        role -> lead.call(view -> view.count(role)),
        role -> lead.call(view -> view.bytesUsed(role)));
    meters.observeLead(
        () -> lead.leadership().leads() ? 1 : 0,
        () -> lead.call(view -> view.state().pins().at(view.nowMs()).size()));
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
