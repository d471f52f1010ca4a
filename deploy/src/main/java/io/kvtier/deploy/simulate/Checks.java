package io.kvtier.deploy.simulate;

import io.kvtier.page.PageKey;
import io.kvtier.replica.Rendezvous;
import io.kvtier.v1.Node;
import io.kvtier.v1.Role;
import io.kvtier.v1.Session;
import io.kvtier.v1.SessionRecord;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.SplittableRandom;

/** The rules that are looked at every so often. Those of single events are checked as they come. */
final class Checks {
  private static final long SECOND_NS = 1_000_000_000L;
  private static final int SAMPLE_KEYS = 8192;
  private static final double EVEN_PAGES = 1.5;
  private static final double SHARE_SLACK = 1.5;

  private final Cluster cluster;
  private final SessionFlow flow;
  private final Changes changes;
  private final List<PageKey> sample = new ArrayList<>();

  Checks(Cluster cluster, SessionFlow flow, Changes changes, SplittableRandom keys) {
    this.cluster = cluster;
    this.flow = flow;
    this.changes = changes;
    for (int i = 0; i < SAMPLE_KEYS; i++) {
      sample.add(new PageKey(keys.nextLong(), keys.nextLong(), keys.nextLong(), keys.nextLong()));
    }
  }

  // ---- placement

  private List<String> homes(PageRanking ranking, List<String> nodes, PageKey key) {
    return Arrays.stream(ranking.ranking(key, cluster.config.replicas()))
        .mapToObj(nodes::get)
        .toList();
  }

  /** A change gives new homes to its share of the pages and to no more. */
  void requireShare(Rendezvous before, PageRanking rankingBefore) {
    Rendezvous now = cluster.traffic.view();
    int moved = 0;
    for (PageKey key : sample) {
      List<String> homesBefore = homes(rankingBefore, before.nodes(), key);
      if (!homes(cluster.traffic.ranking(), now.nodes(), key).equals(homesBefore)) {
        moved++;
      }
    }
    long changed =
        now.nodes().stream().filter(node -> !before.nodes().contains(node)).count()
            + before.nodes().stream().filter(node -> !now.nodes().contains(node)).count();
    int most = Math.max(now.nodes().size(), before.nodes().size());
    double expected = (double) changed * Math.min(cluster.config.replicas(), most) / most;
    double share = (double) moved / sample.size();
    cluster.figures.homesMovedMost = Math.max(cluster.figures.homesMovedMost, share);
    cluster.figures.homesMovedExpected = Math.max(cluster.figures.homesMovedExpected, expected);
    cluster.audit.require(
        Rule.SHARE_MOVED,
        share <= SHARE_SLACK * expected + .005,
        () ->
            "%d of %d nodes changed, and %.4f of the pages have other homes"
                .formatted(changed, most, share));
  }

  void requireEvenPages() {
    int[] homes = new int[cluster.traffic.view().nodes().size()];
    for (PageKey key : sample) {
      for (int node : cluster.traffic.ranking().ranking(key, cluster.config.replicas())) {
        homes[node]++;
      }
    }
    double mean = Arrays.stream(homes).average().orElse(0);
    int most = Arrays.stream(homes).max().orElse(0);
    // So few keys a node that chance alone would spread them wider say nothing.
    double slack = 5 * Math.sqrt(mean);
    cluster.audit.require(
        Rule.EVEN_PAGES,
        most <= Math.max(EVEN_PAGES * mean, mean + slack),
        () ->
            "a tier is home to %d of %d pages, the mean is %.0f"
                .formatted(most, sample.size(), mean));
  }

  // ---- members

  /** Neither a worker nor a tier that has been silent for its lease is a member. */
  void requireHeardNodes() {
    long since = cluster.time.nowNs() - Cluster.NODE_LEASE_NS - SECOND_NS;
    for (Node node : cluster.front.nodes(Role.ROLE_WORKER)) {
      requireHeard(node, cluster.worker(node.getTarget()).heardNs(), since);
    }
    for (Node node : cluster.front.nodes(Role.ROLE_TIER)) {
      TierNode tier =
          cluster.tiers.stream()
              .filter(each -> each.id.equals(node.getNodeId()))
              .findFirst()
              .orElseThrow();
      requireHeard(node, tier.heardNs(), since);
    }
  }

  private void requireHeard(Node node, long heardNs, long sinceNs) {
    cluster.audit.require(
        Rule.DEAD_NODES_GONE,
        heardNs >= sinceNs,
        () -> "%s was last heard at second %d".formatted(node.getNodeId(), heardNs / SECOND_NS));
  }

  // ---- sessions

  /** Each session that an engine has is open, and on no other worker than its own in its epoch. */
  void requireOneWorker() {
    Audit audit = cluster.audit;
    List<SessionRecord> records = cluster.front.sessions();
    int known = 0;
    for (SessionRecord record : records) {
      Session session = record.getSession();
      SimulatedSession engines = flow.open().get(session.getSessionId());
      if (engines != null) {
        known++;
        audit.require(
            Rule.ONE_WORKER,
            engines.info.getEpoch() == session.getEpoch()
                && engines.info.getWorkerTarget().equals(session.getWorkerTarget()),
            () ->
                "session %s is on %s in epoch %d, its engine was told %s and %d"
                    .formatted(
                        session.getSessionId(),
                        session.getWorkerTarget(),
                        session.getEpoch(),
                        engines.info.getWorkerTarget(),
                        engines.info.getEpoch()));
      }
    }
    int missing = flow.open().size() - known;
    audit.require(
        Rule.SESSION_KEPT,
        missing == 0,
        () -> "%d sessions that engines have are not open".formatted(missing));
    int nobodys = records.size() - known;
    audit.require(
        Rule.ONE_WORKER,
        nobodys == 0,
        () -> "%d sessions are open that no engine has".formatted(nobodys));
    requireCurrentEpochsOnce();
  }

  /** No second worker has a session in its current epoch. */
  private void requireCurrentEpochsOnce() {
    for (WorkerNode worker : cluster.workers) {
      for (Attached attached : worker.sessions().values()) {
        SimulatedSession session = flow.open().get(attached.info.getSessionId());
        cluster.audit.require(
            Rule.ONE_WORKER,
            session == null
                || attached.epoch != session.info.getEpoch()
                || session.info.getWorkerTarget().equals(worker.target),
            () ->
                "session %s is on %s too, in its current epoch"
                    .formatted(attached.info.getSessionId(), worker.id));
      }
    }
  }

  // ---- pages

  /** What a session needs that has been served for a while has its copies. */
  void requireCopies() {
    long now = cluster.time.nowNs();
    if (now - changes.tierChangedNs() <= 2 * Changes.REPAIRED_WITHIN_NS) {
      return;
    }
    int wanted = Math.min(cluster.config.writeAcks(), cluster.traffic.view().nodes().size());
    int few = 0;
    for (SimulatedSession session : flow.open().values()) {
      Attached there = flow.attached(session);
      if (there != null && now - there.sinceNs > Changes.REPAIRED_WITHIN_NS) {
        for (PageKey key : session.relied) {
          few += cluster.audit.pages.copies(key) < wanted ? 1 : 0;
        }
      }
    }
    int lacking = few;
    cluster.audit.require(
        Rule.ENOUGH_COPIES,
        lacking == 0,
        () -> "%d pages in use have fewer than %d copies".formatted(lacking, wanted));
  }

  /** Every lease that runs has been renewed in time. */
  void requireLeasesEnd() {
    for (TierNode tier : cluster.tiers) {
      if (tier.up()) {
        int running = tier.leases.running(cluster.time.nowNs());
        cluster.audit.require(
            Rule.LEASES_END,
            tier.pages().leases() <= running,
            () ->
                "%s has %d leases, and %d can run still"
                    .formatted(tier.id, tier.pages().leases(), running));
      }
    }
  }

  // ---- the end

  void requireNothingLeft() {
    require(cluster.front.sessionCount() == 0, cluster.front.sessionCount() + " sessions are open");
    for (WorkerNode worker : cluster.workers) {
      require(
          worker.sessions().isEmpty() && worker.deviceBytes() == 0,
          "%s has %d sessions and %d device bytes promised"
              .formatted(worker.id, worker.sessions().size(), worker.deviceBytes()));
      require(
          cluster.front.sessionsOn(worker.target) == 0,
          "the coordinator counts sessions on " + worker.id);
      require(
          worker.keysLeased() == 0,
          "%s keeps %d keys leased".formatted(worker.id, worker.keysLeased()));
    }
    for (TierNode tier : cluster.tiers) {
      require(
          !tier.up() || tier.pages().keysPinned() == 0,
          "%s has %d leases of %d keys"
              .formatted(tier.id, tier.pages().leases(), tier.pages().keysPinned()));
    }
    cluster.audit.pages.forEach((key, page) -> {
      if (!key.isOfPrefix()) {
        cluster.figures.leftToEvict++;
      }
    });
    // What moved sessions leave, and what is with a tier out of reach, goes by eviction.
    require(
        cluster.figures.leftToEvict == 0 || cluster.config.lossesPerHour() > 0,
        cluster.figures.leftToEvict + " pages of sessions are left");
  }

  private void require(boolean holds, String what) {
    cluster.audit.require(Rule.NOTHING_LEFT, holds, () -> what);
  }
}
