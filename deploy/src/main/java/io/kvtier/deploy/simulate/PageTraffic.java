package io.kvtier.deploy.simulate;

import com.google.errorprone.annotations.CanIgnoreReturnValue;
import io.kvtier.KvtierException;
import io.kvtier.cachetier.PutResult;
import io.kvtier.page.Codec;
import io.kvtier.page.PageKey;
import io.kvtier.replica.HedgeBudget;
import io.kvtier.replica.NodeHealth;
import io.kvtier.replica.ReadCourse;
import io.kvtier.replica.Rendezvous;
import io.kvtier.replica.RepairPlan;
import io.kvtier.replica.RepairQueue.Repair;
import io.kvtier.replica.ReplicaConfig;
import io.kvtier.replica.ReplicaCounts;
import io.kvtier.replica.ReplicaCounts.Count;
import io.kvtier.replica.WriteCourse;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.BitSet;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Consumer;
import org.jspecify.annotations.Nullable;

/**
 * Pages on their way between workers and tiers: the product's courses of puts, reads and repairs,
 * over nodes that answer at once or not at all.
 */
final class PageTraffic {
  private static final long ANSWER_NS = 200_000;

  private final Parts parts;
  private final ReplicaConfig config;
  private final Map<String, TierNode> byId = new HashMap<>();
  private final Map<String, NodeHealth> healthById = new HashMap<>();
  private final HedgeBudget hedges;
  private final Audit audit;
  private final EventQueue time;
  private final Figures figures;
  private final int acksWanted;
  private final int pageLength;
  private final int sinkLength;
  final ReplicaCounts counts = new ReplicaCounts();

  private Rendezvous view = new Rendezvous(0, List.of());
  private PageRanking ranking = (key, countMax) -> new int[0];

  /** In the order of the members that pages go to, and of all. */
  private NodeHealth[] health = {};

  private NodeHealth[] everyonesHealth = {};

  PageTraffic(
      Parts parts,
      ReplicaConfig config,
      int acksWanted,
      List<TierNode> tiers,
      int pageLength,
      int sinkLength,
      Audit audit,
      EventQueue time,
      Figures figures) {
    this.parts = parts;
    this.config = config;
    this.acksWanted = acksWanted;
    this.pageLength = pageLength;
    this.sinkLength = sinkLength;
    this.audit = audit;
    this.time = time;
    this.figures = figures;
    this.hedges = new HedgeBudget(config.hedgePercent());
    tiers.forEach(tier -> byId.put(tier.id, tier));
  }

  /** The members that workers go by from now on. */
  void members(Rendezvous now) {
    view = now;
    ranking = parts.ranking().apply(now);
    health = healthOf(now.nodes());
    everyonesHealth = healthOf(now.everyone());
  }

  private NodeHealth[] healthOf(List<String> ids) {
    return ids.stream()
        .map(id -> healthById.computeIfAbsent(id, _ -> new NodeHealth()))
        .toArray(NodeHealth[]::new);
  }

  Rendezvous view() {
    return view;
  }

  PageRanking ranking() {
    return ranking;
  }

  int lengthOf(PageKey key) {
    return key.keyCodecId() == Codec.RAW16.id() ? sinkLength : pageLength;
  }

  /** A tier by its id. */
  TierNode tier(String id) {
    TierNode tier = byId.get(id);
    if (tier == null) {
      throw new IllegalStateException("no tier " + id);
    }
    return tier;
  }

  private int[][] rankings(List<PageKey> keys) {
    return keys.stream().map(key -> ranking.ranking(key, config.nodesMax())).toArray(int[][]::new);
  }

  // ---- put

  /** Puts pages; false: they could not be acknowledged. */
  boolean put(WorkerNode worker, List<PageKey> keys) {
    int[][] rankings = rankings(keys);
    if (rankings.length == 0) {
      return true;
    }
    if (rankings[0].length == 0) {
      return false;
    }
    WriteCourse course = new WriteCourse(rankings, health, config, counts);
    ArrayDeque<WriteCourse.Copy> todo = new ArrayDeque<>(course.begin(time.nowNs()));
    while (!todo.isEmpty()) {
      WriteCourse.Copy copy = todo.remove();
      List<PageKey> copied = copy.pages().stream().map(keys::get).toList();
      try {
        store(worker, tier(view.nodes().get(copy.node())), copied);
        course.stored(copy);
      } catch (KvtierException e) {
        todo.addAll(course.refused(copy, e, time.nowNs()));
      }
    }
    if (!course.acknowledged()) {
      figures.putsRefused++;
      return false;
    }
    worker.repairs().remember(keys, view);
    int enough = Math.min(acksWanted, view.nodes().size());
    int fewest = Integer.MAX_VALUE;
    for (int i = 0; i < keys.size(); i++) {
      fewest = Math.min(fewest, audit.pages.acknowledged(keys.get(i)));
      if (course.needsRepair(i)) {
        worker.repairs().offer(keys.get(i), time.nowNs());
      }
    }
    int copies = fewest;
    audit.require(
        Rule.ENOUGH_COPIES,
        copies >= enough,
        () -> "a page of %s was acknowledged with %d copies".formatted(worker.id, copies));
    return true;
  }

  private void store(WorkerNode worker, TierNode tier, List<PageKey> keys) {
    worker.pin(tier, keys);
    for (PageKey key : keys) {
      if (tier.put(key, lengthOf(key)) == PutResult.STORED) {
        figures.pagesPut++;
        figures.bytesPut += lengthOf(key);
      }
    }
  }

  // ---- read

  /** Reads pages; which were served. */
  boolean[] read(WorkerNode worker, List<PageKey> keys) {
    boolean[] served = new boolean[keys.size()];
    int[][] sources =
        keys.stream()
            .map(key -> view.sources(key, config.replicas(), config.nodesMax()))
            .toArray(int[][]::new);
    if (sources.length == 0 || sources[0].length == 0) {
      return served;
    }
    int homes = Math.min(config.replicas(), view.nodes().size());
    ReadCourse course = new ReadCourse(sources, homes, everyonesHealth, config, hedges, counts);
    ArrayDeque<ReadCourse.Ask> todo = new ArrayDeque<>(course.begin(time.nowNs()));
    while (!todo.isEmpty()) {
      ReadCourse.Ask ask = todo.remove();
      answer(course, ask, keys, served, todo);
    }
    for (int i = 0; i < served.length; i++) {
      if (course.needsRepair(i)) {
        worker.repairs().offer(keys.get(i), time.nowNs());
      }
    }
    return served;
  }

  private void answer(
      ReadCourse course,
      ReadCourse.Ask ask,
      List<PageKey> keys,
      boolean[] served,
      ArrayDeque<ReadCourse.Ask> todo) {
    TierNode tier = tier(view.everyone().get(ask.node()));
    try {
      while (ask.given() < ask.size()) {
        int index = ask.key(ask.given());
        if (!tier.read(keys.get(index))) {
          throw new KvtierException(KvtierException.Code.LOST, tier.id + " lacks the page");
        }
        List<ReadCourse.Ask> more = new ArrayList<>();
        served[index] |= course.answered(ask, true, time.nowNs() + ANSWER_NS, more);
        todo.addAll(more);
      }
    } catch (KvtierException e) {
      todo.addAll(course.refused(ask, e, time.nowNs()));
    }
  }

  // ---- hold and delete

  /** Holds pages at every member that answers. */
  void hold(WorkerNode worker, List<PageKey> keys) {
    if (!keys.isEmpty()) {
      worker.repairs().hold(keys);
      atEach(view.everyone(), tier -> worker.hold(tier, keys));
    }
  }

  /** Lets pages go at every member; whether all have heard it. */
  @CanIgnoreReturnValue
  boolean letGo(WorkerNode worker, List<PageKey> keys) {
    worker.repairs().letGo(keys);
    return keys.isEmpty() || atEach(view.everyone(), tier -> worker.letGo(tier, keys));
  }

  /** Deletes pages at every member; whether all have heard it. */
  boolean delete(WorkerNode worker, List<PageKey> keys) {
    if (keys.isEmpty()) {
      return true;
    }
    worker.repairs().forget(keys);
    return atEach(
        view.everyone(),
        tier -> {
          worker.release(tier, keys);
          tier.deleteAll(keys);
        });
  }

  /** Does something at some nodes; whether all have done it. */
  @CanIgnoreReturnValue
  private boolean atEach(List<String> nodes, Consumer<TierNode> call) {
    boolean all = true;
    for (String id : nodes) {
      try {
        call.accept(tier(id));
      } catch (KvtierException e) {
        all = false;
      }
    }
    return all;
  }

  // ---- repair

  /** Does as many of a worker's repairs as it may. */
  void repair(WorkerNode worker, int most) {
    RepairPlan plan = worker.repairs();
    List<PageKey> held = plan.takeUnseen(Integer.MAX_VALUE);
    RepairPlan.lacking(view, config.replicas(), held, this::contains)
        .forEach(key -> plan.offer(key, time.nowNs()));
    for (int i = 0; i < most; i++) {
      Repair repair = plan.poll(time.nowNs());
      if (repair == null) {
        return;
      }
      if (plan.mend(view, repair.key(), new Copier(worker))) {
        counts.add(Count.REPAIRS_DONE, 1);
      } else {
        plan.failed(repair, time.nowNs());
      }
    }
  }

  private @Nullable BitSet contains(String node, List<PageKey> keys) {
    TierNode tier = tier(node);
    if (!tier.up()) {
      return null;
    }
    BitSet found = new BitSet();
    for (int i = 0; i < keys.size(); i++) {
      found.set(i, tier.contains(keys.get(i)));
    }
    return found;
  }

  private final class Copier implements RepairPlan.Copier<Integer> {
    private final WorkerNode worker;

    Copier(WorkerNode worker) {
      this.worker = worker;
    }

    @Override
    public @Nullable Integer read(String node, PageKey key) {
      try {
        return tier(node).read(key) ? lengthOf(key) : null;
      } catch (KvtierException e) {
        return null;
      }
    }

    @Override
    public boolean write(String node, PageKey key, Integer length) {
      try {
        worker.pin(tier(node), List.of(key));
        if (tier(node).put(key, length) == PutResult.STORED) {
          figures.bytesRepaired += length;
        }
        return true;
      } catch (KvtierException e) {
        return false;
      }
    }
  }
}
