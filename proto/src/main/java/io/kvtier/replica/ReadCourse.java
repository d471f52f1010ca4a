package io.kvtier.replica;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.replica.ReplicaCounts.Count;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.TreeMap;
import org.jspecify.annotations.Nullable;

/**
 * The course of one read of a batch of pages: whom to ask for what, and what to make of the
 * answers. Each page is asked of its first home; when that one lacks it, fails or is silent for too
 * long, of the next in rank. A node that lacks one page of an ask may lack many, and answers none
 * behind the first it lacks; so all that it has not given moves on with it, and comes back only if
 * the others lack it.
 *
 * <p>A silent node is hedged: past its own 99th percentile, and as far as the budget goes, the next
 * one is asked too, and whichever answers first is taken. For one thread at a time. Times are of
 * one monotonic clock.
 */
public final class ReadCourse {
  /** Some pages asked of one node in one call, which answers them in this order. */
  public static final class Ask {
    private final int node;
    private final int[] keys;
    private final boolean hedge;
    private final long askedNs;
    private long heardNs;
    private int given;
    private boolean hedged;
    private boolean over;

    private Ask(int node, int[] keys, boolean hedge, long nowNs) {
      this.node = node;
      this.keys = keys;
      this.hedge = hedge;
      this.askedNs = nowNs;
      this.heardNs = nowNs;
    }

    /** The node, as an index in {@link Rendezvous#nodes}. */
    public int node() {
      return node;
    }

    /** Pages asked. */
    public int size() {
      return keys.length;
    }

    /** The index in the batch of a page of this ask. */
    public int key(int i) {
      return keys[i];
    }

    /** Pages that it has given; the next one due has this place in the ask. */
    public int given() {
      return given;
    }
  }

  /** What is known of one page of the batch. */
  private static final class Page {
    final int[] ranking;
    final ArrayDeque<Integer> left = new ArrayDeque<>();
    int asking;
    boolean served;

    /** Bit r: the node of rank r lacks it. */
    long lacking;

    @Nullable KvtierException failure;

    Page(int[] ranking) {
      this.ranking = ranking;
    }

    int rank(int node) {
      for (int rank = 0; rank < ranking.length; rank++) {
        if (ranking[rank] == node) {
          return rank;
        }
      }
      throw new IllegalStateException("node " + node + " is not ranked");
    }
  }

  private final Page[] pages;
  private final NodeHealth[] health;
  private final ReplicaConfig config;
  private final HedgeBudget budget;
  private final ReplicaCounts counts;
  private final List<Ask> asks = new ArrayList<>();
  private final int homes;
  private int unserved;
  private @Nullable KvtierException failure;

  /**
   * A read to begin, where every node may be a page's home.
   *
   * @param rankings {@code [pages]}: each page's nodes by falling rank, at least one
   * @param health {@code [nodes]}
   */
  public ReadCourse(
      int[][] rankings,
      NodeHealth[] health,
      ReplicaConfig config,
      HedgeBudget budget,
      ReplicaCounts counts) {
    this(rankings, config.replicas(), health, config, budget, counts);
  }

  /**
   * A read to begin.
   *
   * @param rankings {@code [pages]}: the nodes that each page is asked of, in this order, its homes
   *     first; at least one
   * @param homes how many of these are its homes
   * @param health {@code [nodes]}
   */
  public ReadCourse(
      int[][] rankings,
      int homes,
      NodeHealth[] health,
      ReplicaConfig config,
      HedgeBudget budget,
      ReplicaCounts counts) {
    this.homes = homes;
    this.pages = new Page[rankings.length];
    Arrays.setAll(pages, i -> new Page(rankings[i]));
    this.unserved = pages.length;
    this.health = health;
    this.config = config;
    this.budget = budget;
    this.counts = counts;
  }

  /** Asks each page of its first node; suspects come last. */
  public List<Ask> begin(long nowNs) {
    boolean[] suspect = new boolean[health.length];
    for (int node = 0; node < health.length; node++) {
      suspect[node] = health[node].suspect(nowNs);
    }
    for (Page page : pages) {
      for (int node : page.ranking) {
        if (!suspect[node]) {
          page.left.add(node);
        }
      }
      for (int node : page.ranking) {
        if (suspect[node]) {
          page.left.add(node);
        }
      }
    }
    budget.asked(pages.length);
    return askNext(all(), false, nowNs);
  }

  private int[] all() {
    int[] all = new int[pages.length];
    Arrays.setAll(all, i -> i);
    return all;
  }

  /** Asks each of some pages of its next node, one ask a node. */
  private List<Ask> askNext(int[] keys, boolean hedge, long nowNs) {
    TreeMap<Integer, List<Integer>> byNode = new TreeMap<>();
    for (int key : keys) {
      Page page = pages[key];
      Integer node = page.left.poll();
      if (node != null) {
        page.asking++;
        byNode.computeIfAbsent(node, n -> new ArrayList<>()).add(key);
      } else if (page.asking == 0 && !page.served) {
        giveUp(page);
      }
    }
    List<Ask> made = new ArrayList<>();
    byNode.forEach((node, wanted) ->
        made.add(
            new Ask(node, wanted.stream().mapToInt(Integer::intValue).toArray(), hedge, nowNs)));
    asks.addAll(made);
    return made;
  }

  private void giveUp(Page page) {
    if (failure == null) {
      failure =
          page.failure != null
              ? page.failure
              : new KvtierException(
                  Code.LOST,
                  "a page is on none of the %d nodes that it was looked for on"
                      .formatted(page.ranking.length));
    }
  }

  /**
   * The ask's next page has come.
   *
   * @param sound false: it is not what it should be, and is taken as lacking at the node
   * @param more receives who is to be asked in its place
   * @return whether it is the first answer for the page and is to be taken
   */
  public boolean answered(Ask ask, boolean sound, long nowNs, List<Ask> more) {
    int key = ask.keys[ask.given];
    Page page = pages[key];
    if (ask.given == 0) {
      health[ask.node].answered(nowNs - ask.askedNs);
    }
    ask.heardNs = nowNs;
    ask.given++;
    if (!ask.over) {
      page.asking--;
      if (ask.given == ask.keys.length) {
        end(ask);
      }
    }
    if (!sound) {
      counts.add(Count.FLAWED_ANSWERS, 1);
      page.lacking |= 1L << page.rank(ask.node);
      if (!page.served) {
        more.addAll(failOver(List.of(key), nowNs));
      }
      return false;
    }
    if (page.served) {
      return false;
    }
    page.served = true;
    unserved--;
    counts.hit(page.rank(ask.node));
    if (ask.hedge) {
      counts.add(Count.HEDGES_WON, 1);
    }
    return true;
  }

  /**
   * The ask has ended with a refusal: LOST, the node lacks the next page; anything else, it failed.
   * A refusal that is the caller's own fault ends the read.
   */
  public List<Ask> refused(Ask ask, KvtierException refusal, long nowNs) {
    boolean lost = refusal.code() == Code.LOST;
    if (!lost && (refusal.code() == Code.UNAVAILABLE || refusal.code() == Code.DEADLINE)) {
      health[ask.node].failed(nowNs);
    }
    if (lost && ask.given < ask.keys.length) {
      Page lacked = pages[ask.keys[ask.given]];
      lacked.lacking |= 1L << lacked.rank(ask.node);
    }
    if (ask.over) {
      return List.of();
    }
    if (!othersMayServe(refusal.code())) {
      failure = failure == null ? refusal : failure;
    }
    return moveOn(ask, lost, refusal, nowNs);
  }

  private static boolean othersMayServe(Code code) {
    return switch (code) {
      case LOST, UNAVAILABLE, DEADLINE, EXHAUSTED, INTERNAL, NOT_FOUND -> true;
      case INVALID, EXISTS, PRECONDITION -> false;
    };
  }

  /** Asks others for what the ask has not given. */
  private List<Ask> moveOn(Ask ask, boolean lost, KvtierException reason, long nowNs) {
    end(ask);
    int[] rest = Arrays.copyOfRange(ask.keys, ask.given, ask.keys.length);
    List<Integer> open = new ArrayList<>();
    for (int i = 0; i < rest.length; i++) {
      Page page = pages[rest[i]];
      page.asking--;
      if (!lost) {
        page.failure = reason;
      } else if (i > 0) {
        page.left.add(ask.node);
      }
      if (!page.served && page.asking == 0) {
        open.add(rest[i]);
      }
    }
    return failOver(open, nowNs);
  }

  private List<Ask> failOver(List<Integer> keys, long nowNs) {
    List<Ask> asked = askNext(keys.stream().mapToInt(Integer::intValue).toArray(), false, nowNs);
    counts.add(Count.FAIL_OVERS, asked.stream().mapToInt(Ask::size).sum());
    return asked;
  }

  private void end(Ask ask) {
    ask.over = true;
    asks.remove(ask);
  }

  /** Gives up asks that have been silent for too long, and hedges those that are slow. */
  public List<Ask> tick(long nowNs) {
    List<Ask> more = new ArrayList<>();
    for (Ask ask : List.copyOf(asks)) {
      long silentNs = nowNs - ask.heardNs;
      if (silentNs >= config.askTimeout().toNanos()) {
        health[ask.node].failed(nowNs);
        more.addAll(
            moveOn(
                ask,
                false,
                new KvtierException(
                    Code.UNAVAILABLE,
                    "a tier node was silent for %s".formatted(config.askTimeout())),
                nowNs));
      } else if (!ask.hedged && silentNs >= health[ask.node].p99Ns()) {
        more.addAll(hedge(ask, nowNs));
      }
    }
    return more;
  }

  private List<Ask> hedge(Ask ask, long nowNs) {
    ask.hedged = true;
    int[] slow =
        Arrays.stream(ask.keys, ask.given, ask.keys.length)
            .filter(key -> !pages[key].served && pages[key].asking == 1)
            .filter(key -> !pages[key].left.isEmpty())
            .toArray();
    int granted = budget.take(slow.length);
    counts.add(Count.HEDGES_SENT, granted);
    return askNext(Arrays.copyOf(slow, granted), true, nowNs);
  }

  /** Nanoseconds until {@link #tick} may have something to do; at least 1. */
  public long untilTickNs(long nowNs) {
    long untilNs = config.askTimeout().toNanos();
    for (Ask ask : asks) {
      long allowedNs = config.askTimeout().toNanos();
      if (!ask.hedged) {
        allowedNs = Math.min(allowedNs, health[ask.node].p99Ns());
      }
      untilNs = Math.min(untilNs, ask.heardNs + allowedNs - nowNs);
    }
    return Math.max(1, untilNs);
  }

  /** Whether every page has come. */
  public boolean done() {
    return unserved == 0;
  }

  /** Why the read fails; null: it does not, so far. */
  public @Nullable KvtierException failure() {
    return failure;
  }

  /** Whether a page has come, but some home of it lacks it: it should be repaired. */
  public boolean needsRepair(int key) {
    Page page = pages[key];
    return page.served && (page.lacking & (1L << homes) - 1) != 0;
  }
}
