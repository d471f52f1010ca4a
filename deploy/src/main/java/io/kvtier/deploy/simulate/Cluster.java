package io.kvtier.deploy.simulate;

import io.kvtier.replica.ReplicaConfig;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.SplittableRandom;

/** All nodes of a run, and what they have in common. */
final class Cluster {
  /** As the product's defaults: a node's membership, and a worker's leases at tiers. */
  static final long NODE_LEASE_NS = 15_000_000_000L;

  static final long LEASE_TTL_NS = 30_000_000_000L;

  private static final Duration TIMEOUT = Duration.ofSeconds(5);

  final EventQueue time = new EventQueue();
  final Audit audit = new Audit(time);
  final Figures figures = new Figures();
  final List<WorkerNode> workers = new ArrayList<>();

  /** The last one joins later. */
  final List<TierNode> tiers = new ArrayList<>();

  final SimulationConfig config;
  final Model model;
  final ReplicaConfig replicas;
  final Fleet fleet;
  final Front front;
  final PageTraffic traffic;
  private final Parts parts;
  private final Map<String, WorkerNode> workersByTarget = new HashMap<>();

  Cluster(SimulationConfig config, Parts parts, SplittableRandom random) {
    this.config = config;
    this.parts = parts;
    this.model = new Model(random.split(), config.layers());
    this.replicas =
        parts.replicas().apply(ReplicaConfig.of(config.replicas(), config.writeAcks(), TIMEOUT));
    for (int i = 0; i <= config.tiers(); i++) {
      tiers.add(new TierNode(i, freshTier(1), audit, time));
    }
    this.traffic =
        new PageTraffic(
            parts,
            replicas,
            config.writeAcks(),
            tiers,
            model.layout.pageLength(),
            model.sinkLayout.pageLength(),
            audit,
            time,
            figures);
    for (int i = 0; i < config.workers(); i++) {
      WorkerNode worker =
          new WorkerNode(i, config.deviceBytes(), LEASE_TTL_NS, replicas, traffic.counts);
      workers.add(worker);
      workersByTarget.put(worker.target, worker);
    }
    this.fleet = new Fleet(this, random.split());
    this.front = new Front(config, parts, fleet, time, audit, random.split());
  }

  WorkerNode worker(String target) {
    WorkerNode worker = workersByTarget.get(target);
    if (worker == null) {
      throw new IllegalStateException("no worker at " + target);
    }
    return worker;
  }

  TierPages freshTier(long instance) {
    return parts.tiers().make(config.tierBytes(), instance, time::nowNs);
  }
}
