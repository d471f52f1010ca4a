package io.kvtier.deploy.simulate;

import io.kvtier.replica.Rendezvous;
import io.kvtier.v1.FreedSession;
import io.kvtier.v1.HeartbeatRequest;
import io.kvtier.v1.Node;
import io.kvtier.v1.Role;
import io.kvtier.v1.SessionRef;
import java.util.List;
import java.util.Set;
import java.util.SplittableRandom;
import java.util.stream.Collectors;

/**
 * One run: the load, the changes, what nodes do every so often, and the checks. Deterministic: the
 * same configuration gives the same report.
 */
public final class Simulation {
  private static final long SECOND_NS = 1_000_000_000L;
  private static final long HEARTBEAT_NS = Cluster.NODE_LEASE_NS / 3;
  private static final long RENEWAL_NS = Cluster.LEASE_TTL_NS / 3;
  private static final long LONGEST_NS = 4 * 3600 * SECOND_NS;
  private static final int IDLE_TOLD_MAX = 256;
  private static final int REPAIRS_A_SECOND = 200;

  /** From the last session's end until what was left behind must be gone. */
  private static final long END_NS =
      Workload.IDLE_TIMEOUT_MS * 1_000_000L + Cluster.LEASE_TTL_NS + Changes.REPAIRED_WITHIN_NS;

  private final SimulationConfig config;
  private final Cluster cluster;
  private final SessionFlow flow;
  private final Checks checks;
  private final Balance sessions = new Balance();
  private final Balance bytes = new Balance();
  private boolean ticking = true;

  /** Hears how far a run is. */
  @FunctionalInterface
  public interface Progress {
    void at(long done, long total, String what);
  }

  Simulation(SimulationConfig config, Parts parts) {
    this.config = config;
    SplittableRandom random = new SplittableRandom(config.seed());
    this.cluster = new Cluster(config, parts, random.split());
    Workload workload = new Workload(random.split(), config.prefixes());
    this.flow = new SessionFlow(cluster, workload, random.split());
    Changes changes = new Changes(cluster, random.split());
    this.checks = new Checks(cluster, flow, changes, random.split());
    SplittableRandom arrivals = random.split();
    for (int i = 0; i < config.sessions(); i++) {
      cluster.time.at(arrivals.nextLong(config.arrivals().toNanos()), flow::arrive);
    }
    changes.plan(config.arrivals().toNanos());
  }

  /** Runs the product's parts. */
  public static SimulationReport run(SimulationConfig config, Progress progress) {
    return new Simulation(config, Parts.product()).run(progress);
  }

  SimulationReport run(Progress progress) {
    begin();
    long steps = 0;
    while (cluster.time.nowNs() < horizonNs()
        && !cluster.audit.isHopeless()
        && cluster.time.step()) {
      if ((++steps & 0xFF) == 0) {
        Figures figures = cluster.figures;
        progress.at(
            figures.closed + figures.refused,
            config.sessions(),
            "%,d sessions open, second %,d"
                .formatted(figures.open, cluster.time.nowNs() / SECOND_NS));
      }
    }
    checks.requireNothingLeft();
    return new SimulationReport(config, cluster, sessions, bytes);
  }

  /** By then every conversation is over, or never will be. */
  private long horizonNs() {
    return config.arrivals().toNanos() + LONGEST_NS;
  }

  private void begin() {
    cluster.workers.forEach(worker -> cluster.front.register(worker.node()));
    TierNode later = cluster.tiers.getLast();
    later.lose();
    cluster.tiers.stream()
        .filter(TierNode::up)
        .forEach(tier -> cluster.front.register(tier.node()));
    cluster.traffic.members(cluster.front.tiers());
    for (WorkerNode worker : cluster.workers) {
      boolean _ = worker.repairs().members(cluster.traffic.view());
    }
    checks.requireEvenPages();
    every(SECOND_NS, this::second);
    every(HEARTBEAT_NS, this::heartbeats);
    every(RENEWAL_NS, this::renewals);
    every(5 * SECOND_NS, checks::requireOneWorker);
    every(10 * SECOND_NS, checks::requireHeardNodes);
    every(30 * SECOND_NS, this::expireLeases);
    every(30 * SECOND_NS, this::look);
    cluster.time.every(SECOND_NS, this::watchTheEnd);
  }

  private void every(long periodNs, Runnable what) {
    cluster.time.every(
        periodNs,
        () -> {
          what.run();
          return ticking;
        });
  }

  /** All that runs by the clock goes on for a while after the last session, then ends. */
  private boolean watchTheEnd() {
    if (!flow.over()) {
      return true;
    }
    cluster.time.after(END_NS, () -> ticking = false);
    return false;
  }

  private Set<String> tierMembers() {
    return cluster.front.nodes(Role.ROLE_TIER).stream()
        .map(Node::getNodeId)
        .collect(Collectors.toSet());
  }

  private void renewals() {
    Set<String> members = tierMembers();
    for (WorkerNode worker : cluster.workers) {
      if (worker.up()) {
        worker.renew(cluster.tiers, members, cluster.time.nowNs());
      }
    }
  }

  private void expireLeases() {
    cluster.tiers.forEach(TierNode::expire);
    checks.requireLeasesEnd();
  }

  private void heartbeats() {
    long now = cluster.time.nowNs();
    for (WorkerNode worker : cluster.workers) {
      if (worker.reachable()) {
        worker.heard(now);
        heartbeat(worker, worker.idle(now, IDLE_TOLD_MAX));
      }
    }
    for (TierNode tier : cluster.tiers) {
      if (tier.up()) {
        tier.heard(now);
        var _ =
            cluster.front.heartbeat(
                HeartbeatRequest.newBuilder()
                    .setNodeId(tier.id)
                    .setBytesUsed(tier.pages().bytesUsed())
                    .build());
      }
    }
  }

  private void heartbeat(WorkerNode worker, List<SessionRef> idle) {
    List<FreedSession> freed =
        cluster
            .front
            .heartbeat(
                HeartbeatRequest.newBuilder()
                    .setNodeId(worker.id)
                    .setBytesUsed(worker.deviceBytes())
                    .setSessions(worker.sessions().size())
                    .addAllIdleSessions(idle)
                    .build())
            .getFreedSessionsList();
    for (FreedSession each : freed) {
      cluster.figures.freedIdle++;
      for (SessionRef told : idle) {
        if (told.getSessionId().equals(each.getSessionId())) {
          cluster.fleet.free(worker, told.getSessionId(), told.getEpoch(), each.getKeepPages());
        }
      }
    }
  }

  // ---- a second

  private void second() {
    cluster.front.keepHouse();
    lookAtMembers();
    Set<String> members = tierMembers();
    cluster.tiers.forEach(tier -> tier.tell(cluster.front.prefixes, members.contains(tier.id)));
    for (WorkerNode worker : cluster.workers) {
      if (worker.up()) {
        cluster.traffic.repair(worker, REPAIRS_A_SECOND);
      }
    }
  }

  private void lookAtMembers() {
    Rendezvous now = cluster.front.tiers();
    Rendezvous before = cluster.traffic.view();
    if (now.nodes().isEmpty() || now.sameMembers(before)) {
      return;
    }
    PageRanking rankingBefore = cluster.traffic.ranking();
    cluster.traffic.members(now);
    checks.requireShare(before, rankingBefore);
    checks.requireEvenPages();
    for (WorkerNode worker : cluster.workers) {
      if (worker.up()) {
        boolean _ = worker.repairs().members(now);
      }
    }
  }

  private void look() {
    sessions.look(
        cluster.workers.stream()
            .filter(WorkerNode::reachable)
            .mapToLong(worker -> worker.sessions().size())
            .toArray(),
        1);
    // A tier that has just come back empty fills by and by.
    bytes.look(
        cluster.traffic.view().nodes().stream()
            .mapToLong(id -> cluster.traffic.tier(id).bytes())
            .toArray(),
        config.tierBytes() / 16.);
    checks.requireCopies();
  }
}
