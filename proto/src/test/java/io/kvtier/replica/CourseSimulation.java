package io.kvtier.replica;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.replica.ReadCourse.Ask;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.PriorityQueue;
import java.util.SplittableRandom;

/**
 * Nodes in memory under a clock of their own, with faults: what a course asks for happens in the
 * order of that clock, so that a seed tells the whole story.
 */
final class CourseSimulation {
  static final long MS = 1_000_000L;

  /** What a node does with calls. */
  enum Fault {
    NONE,
    /** Refuses at once, as a dead process does. */
    DEAD,
    /** Never answers. */
    SILENT,
    /** Answers late. */
    SLOW,
    /** Answers the first page of a call, and then nothing more. */
    STALLS,
    /** Has no room. */
    FULL
  }

  /** A page's state on a node; absent from the map: the node lacks it. */
  enum Stored {
    GOOD,
    /** Comes with a flipped bit. */
    FLIPS
  }

  private record Event(long atNs, long order, Runnable what) {}

  final int[][] rankings;
  final NodeHealth[] health;
  final Fault[] faults;
  final List<Map<Integer, Stored>> nodes = new ArrayList<>();
  final ReplicaCounts counts = new ReplicaCounts();
  final ReplicaConfig config;
  final HedgeBudget budget;
  private final SplittableRandom random;
  private final PriorityQueue<Event> events =
      new PriorityQueue<>((a, b) ->
          a.atNs != b.atNs ? Long.compare(a.atNs, b.atNs) : Long.compare(a.order, b.order));
  private long orders;
  long nowNs;
  int asksSent;

  CourseSimulation(long seed, int nodeCount, int pages, ReplicaConfig config) {
    this.random = new SplittableRandom(seed);
    this.config = config;
    this.budget = new HedgeBudget(config.hedgePercent());
    this.nowNs = random.nextLong();
    this.faults = new Fault[nodeCount];
    Arrays.fill(faults, Fault.NONE);
    this.health = new NodeHealth[nodeCount];
    Arrays.setAll(health, i -> new NodeHealth());
    for (int i = 0; i < nodeCount; i++) {
      nodes.add(new HashMap<>());
    }
    this.rankings = new int[pages][];
    for (int page = 0; page < pages; page++) {
      rankings[page] = permutation(nodeCount);
    }
  }

  static ReplicaConfig config(int replicas, int acks) {
    return ReplicaConfig.of(replicas, acks, Duration.ofMillis(400));
  }

  private int[] permutation(int n) {
    int[] order = new int[n];
    for (int i = 0; i < n; i++) {
      int at = random.nextInt(i + 1);
      order[i] = order[at];
      order[at] = i;
    }
    return order;
  }

  /** Puts every page on its homes. */
  void fill() {
    for (int page = 0; page < rankings.length; page++) {
      for (int home = 0; home < Math.min(config.replicas(), rankings[page].length); home++) {
        nodes.get(rankings[page][home]).put(page, Stored.GOOD);
      }
    }
  }

  private void at(long delayNs, Runnable what) {
    events.add(new Event(nowNs + delayNs, orders++, what));
  }

  private long latencyNs(int node) {
    long ns = MS + random.nextLong(MS / 4);
    return faults[node] == Fault.SLOW ? ns + 40 * MS : ns;
  }

  private KvtierException refusal(Code code) {
    return new KvtierException(code, "simulated");
  }

  // ---- reads

  /** Runs a read to its end; the pages that came, by the node that gave them. */
  Map<Integer, Integer> read(ReadCourse course) {
    Map<Integer, Integer> taken = new HashMap<>();
    send(course, course.begin(nowNs), taken);
    int steps = 0;
    while (!course.done() && course.failure() == null) {
      if (steps++ > 200_000) {
        throw new AssertionError("the read does not end");
      }
      long tickNs = nowNs + course.untilTickNs(nowNs);
      Event next = events.peek();
      if (next == null || next.atNs - tickNs > 0) {
        nowNs = tickNs;
        send(course, course.tick(nowNs), taken);
      } else {
        events.poll();
        nowNs = next.atNs;
        next.what.run();
      }
    }
    return taken;
  }

  private void send(ReadCourse course, List<Ask> asks, Map<Integer, Integer> taken) {
    asksSent += asks.size();
    for (Ask ask : asks) {
      switch (faults[ask.node()]) {
        case DEAD ->
            at(
                MS / 10,
                () -> send(course, course.refused(ask, refusal(Code.UNAVAILABLE), nowNs), taken));
        case SILENT -> {}
        default -> at(latencyNs(ask.node()), () -> answer(course, ask, taken));
      }
    }
  }

  private void answer(ReadCourse course, Ask ask, Map<Integer, Integer> taken) {
    int page = ask.key(ask.given());
    Stored stored = nodes.get(ask.node()).get(page);
    if (stored == null) {
      send(course, course.refused(ask, refusal(Code.LOST), nowNs), taken);
      return;
    }
    List<Ask> more = new ArrayList<>();
    if (course.answered(ask, stored == Stored.GOOD, nowNs, more)) {
      if (taken.put(page, ask.node()) != null) {
        throw new AssertionError("page " + page + " was taken twice");
      }
    }
    send(course, more, taken);
    if (ask.given() < ask.size() && faults[ask.node()] != Fault.STALLS) {
      at(latencyNs(ask.node()) / 20, () -> answer(course, ask, taken));
    }
  }

  // ---- writes

  /** Runs a put until no copy is under way; returns whether it was acknowledged. */
  boolean write(WriteCourse course) {
    store(course, course.begin(nowNs));
    Boolean acknowledged = null;
    while (!course.over()) {
      Event next = events.remove();
      nowNs = next.atNs;
      next.what.run();
      if (acknowledged == null && (course.acknowledged() || course.failure() != null)) {
        acknowledged = course.acknowledged();
        if (acknowledged) {
          requireCopies(Math.min(config.writeAcks(), nodes.size()));
        }
      }
    }
    return Boolean.TRUE.equals(acknowledged);
  }

  private void requireCopies(int copies) {
    for (int page = 0; page < rankings.length; page++) {
      int wanted = page;
      long stored = nodes.stream().filter(node -> node.containsKey(wanted)).count();
      if (stored < copies) {
        throw new AssertionError("page " + page + " was acknowledged with " + stored + " copies");
      }
    }
  }

  private void store(WriteCourse course, List<WriteCourse.Copy> copies) {
    for (WriteCourse.Copy copy : copies) {
      at(
          latencyNs(copy.node()),
          () -> {
            switch (faults[copy.node()]) {
              case DEAD, SILENT -> refuse(course, copy, Code.UNAVAILABLE);
              case FULL -> refuse(course, copy, Code.EXHAUSTED);
              default -> {
                copy.pages().forEach(page -> nodes.get(copy.node()).put(page, Stored.GOOD));
                course.stored(copy);
              }
            }
          });
    }
  }

  private void refuse(WriteCourse course, WriteCourse.Copy copy, Code code) {
    store(course, course.refused(copy, refusal(code), nowNs));
  }
}
