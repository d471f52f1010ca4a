package io.kvtier.deploy.simulate;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.page.PageKey;
import io.kvtier.v1.CloseRequest;
import io.kvtier.v1.MakePlanRequest;
import io.kvtier.v1.SessionRecord;
import java.util.List;
import java.util.SplittableRandom;

/**
 * Nodes that die, drain and come back, a tier that joins, and workers that are out of sight while
 * they go on: whatever is done afterwards in the name of sessions that have moved must be refused.
 */
final class Changes {
  private static final long SECOND_NS = 1_000_000_000L;
  private static final long AWAY_NS = 120 * SECOND_NS;

  /** From the loss of a tier until its pages have their copies again. */
  static final long REPAIRED_WITHIN_NS = Cluster.NODE_LEASE_NS + 60 * SECOND_NS;

  private static final long BETWEEN_TIERS_NS = 2 * (AWAY_NS + REPAIRED_WITHIN_NS);

  private final Cluster cluster;
  private final SplittableRandom random;
  private int workerChanges;
  private int tierChanges;
  private long tierChangedNs = Long.MIN_VALUE / 2;

  Changes(Cluster cluster, SplittableRandom random) {
    this.cluster = cluster;
    this.random = random;
  }

  /** Spreads the changes over a time. */
  void plan(long durationNs) {
    double hours = durationNs / (3600. * SECOND_NS);
    long workers = Math.round(cluster.config.workers() * cluster.config.lossesPerHour() * hours);
    for (long i = 0; i < workers; i++) {
      cluster.time.at(random.nextLong(durationNs), this::changeAWorker);
    }
    // One after the other: the next once the former is back and repaired.
    long tiers = cluster.config.lossesPerHour() == 0 ? 0 : durationNs / BETWEEN_TIERS_NS;
    for (long i = 0; i < tiers; i++) {
      cluster.time.at((i + 1) * durationNs / (tiers + 1), this::changeATier);
    }
    if (tiers > 0) {
      long joinsNs = durationNs / (tiers + 1) / 2;
      cluster.time.at(joinsNs, () -> join(cluster.tiers.getLast()));
    }
  }

  /** When a tier was last lost, drained or taken in. */
  long tierChangedNs() {
    return tierChangedNs;
  }

  // ---- workers

  private void changeAWorker() {
    WorkerNode worker = cluster.workers.get(random.nextInt(cluster.workers.size()));
    if (!worker.reachable()) {
      return;
    }
    switch (workerChanges++ % 4) {
      case 0, 1 -> {
        cluster.figures.workersLost++;
        worker.lose();
        cluster.time.after(AWAY_NS, () -> comeBack(worker));
      }
      case 2 -> {
        cluster.figures.workersCut++;
        worker.cut(true);
        cluster.time.after(AWAY_NS, () -> heal(worker));
      }
      default -> drain(worker);
    }
  }

  private void comeBack(WorkerNode worker) {
    worker.comeBack(cluster.replicas, cluster.traffic.counts);
    boolean _ = worker.repairs().members(cluster.traffic.view());
    cluster.front.register(worker.node());
    worker.heard(cluster.time.nowNs());
    // Whoever of the process before is still about must be fenced off where the new one has been.
    for (TierNode tier : cluster.tiers) {
      if (tier.up()) {
        worker.pin(tier, List.of());
        requireRefused(
            "a lease of %s's former process".formatted(worker.id),
            () -> tier.lease(worker.id, worker.process() - 1, 0, SECOND_NS, List.<PageKey>of()));
      }
    }
  }

  /** A worker is seen again, and goes on as if nothing had been. */
  private void heal(WorkerNode worker) {
    worker.cut(false);
    for (Attached attached : worker.sessions().values()) {
      String id = attached.info.getSessionId();
      cluster.front.sessions().stream()
          .filter(record -> record.getSession().getSessionId().equals(id))
          .filter(record -> record.getSession().getEpoch() != attached.epoch)
          .findFirst()
          .ifPresent(record -> writeLate(record, attached.epoch));
    }
    cluster.front.register(worker.node());
    worker.heard(cluster.time.nowNs());
  }

  private void writeLate(SessionRecord before, long epoch) {
    String id = before.getSession().getSessionId();
    requireRefused(
        "a plan of a former epoch",
        () -> {
          MakePlanRequest request =
              cluster.model.planRequest(before.getSession(), PLAN_TOKENS).toBuilder()
                  .setEpoch(epoch)
                  .build();
          var _ = cluster.front.plan(request);
        });
    requireRefused(
        "a close of a former epoch",
        () ->
            cluster.front.close(
                CloseRequest.newBuilder().setSessionId(id).setEpoch(epoch).build()));
    cluster.audit.require(
        Rule.FENCED,
        cluster.front.session(id).equals(before),
        () -> "session %s was changed by a refused call".formatted(id));
  }

  private static final int PLAN_TOKENS = 512;

  private void requireRefused(String what, Runnable call) {
    try {
      call.run();
    } catch (KvtierException e) {
      if (e.code() == Code.PRECONDITION) {
        cluster.figures.staleRefused++;
        return;
      }
      throw e;
    }
    cluster.audit.broken(Rule.FENCED, what + " was taken");
  }

  private void drain(WorkerNode worker) {
    cluster.figures.workersDrained++;
    cluster.front.drain(worker.id, false);
    cluster.time.after(
        AWAY_NS,
        () -> {
          if (worker.reachable()) {
            cluster.front.drain(worker.id, true);
          }
        });
  }

  // ---- tiers

  private void changeATier() {
    List<TierNode> up = cluster.tiers.stream().filter(TierNode::up).toList();
    TierNode tier = up.get(random.nextInt(up.size()));
    tierChangedNs = cluster.time.nowNs();
    if (tierChanges++ % 2 == 0) {
      cluster.figures.tiersLost++;
      lose(tier);
    } else {
      cluster.figures.tiersDrained++;
      cluster.front.drain(tier.id, false);
      // It leaves once its pages have their copies elsewhere.
      cluster.time.after(REPAIRED_WITHIN_NS, () -> lose(tier));
    }
  }

  private void lose(TierNode tier) {
    cluster.figures.bytesRepairedLeast += tier.pages().bytesUsed();
    tier.lose();
    boolean kept = cluster.config.writeAcks() > 1;
    cluster.audit.pages.lost(
        tier.index,
        cluster.time.nowNs(),
        (key, page) -> {
          if (kept && page.needed() && page.copies() == 0) {
            cluster.audit.broken(
                Rule.ACKNOWLEDGED_KEPT, "page %s was on %s alone".formatted(key, tier.id));
          }
        });
    cluster.time.after(AWAY_NS, () -> join(tier));
  }

  private void join(TierNode tier) {
    tierChangedNs = cluster.time.nowNs();
    cluster.figures.tiersJoined++;
    tier.comeBack(cluster.freshTier(tier.instance() + 1));
    cluster.front.register(tier.node());
    tier.heard(cluster.time.nowNs());
    long bytes = cluster.tiers.stream().filter(TierNode::up).mapToLong(TierNode::bytes).sum();
    long up = cluster.tiers.stream().filter(TierNode::up).count();
    cluster.figures.bytesRepairedLeast += bytes / up;
  }
}
