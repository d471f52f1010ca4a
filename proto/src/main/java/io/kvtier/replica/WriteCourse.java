package io.kvtier.replica;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.replica.ReplicaCounts.Count;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.jspecify.annotations.Nullable;

/**
 * The course of one put of a batch of pages: who is to store what, and when enough copies are
 * stored. Each page goes to its homes; where one refuses or is silent, the next in rank stands in,
 * so that the copies asked for are made while nodes enough answer. For one thread at a time.
 */
public final class WriteCourse {
  /**
   * Some pages sent to one node in one call.
   *
   * @param node as an index in {@link Rendezvous#nodes}
   * @param pages indexes in the batch
   */
  public record Copy(int node, List<Integer> pages) {}

  private static final class Page {
    final int[] ranking;
    final ArrayDeque<Integer> left = new ArrayDeque<>();
    int sending;

    /** Bit r: the node of rank r has it. */
    long stored;

    Page(int[] ranking) {
      this.ranking = ranking;
    }
  }

  /** A copy under way. */
  private static final class Sent {
    final Copy copy;
    final long sentNs;

    /** Others stand in for it already. */
    boolean silent;

    Sent(Copy copy, long sentNs) {
      this.copy = copy;
      this.sentNs = sentNs;
    }
  }

  private final Page[] pages;
  private final List<Sent> sent = new ArrayList<>();
  private final long silenceNs;
  private final NodeHealth[] health;
  private final ReplicaCounts counts;
  private final int copies;
  private final int acks;
  private int unacknowledged;
  private @Nullable KvtierException failure;

  /**
   * A put to begin.
   *
   * @param rankings {@code [pages]}: each page's nodes by falling rank, at least one
   * @param health {@code [nodes]}
   */
  public WriteCourse(
      int[][] rankings, NodeHealth[] health, ReplicaConfig config, ReplicaCounts counts) {
    this.pages = new Page[rankings.length];
    Arrays.setAll(pages, i -> new Page(rankings[i]));
    this.silenceNs = config.askTimeout().toNanos();
    this.health = health;
    this.counts = counts;
    this.copies = Math.min(config.replicas(), health.length);
    this.acks = Math.min(config.writeAcks(), health.length);
    this.unacknowledged = pages.length;
    if (copies < config.replicas()) {
      counts.add(Count.SHORT_ACKS, pages.length);
    }
  }

  /** Sends each page to its homes; suspects come last. */
  public List<Copy> begin(long nowNs) {
    TreeMap<Integer, List<Integer>> byNode = new TreeMap<>();
    for (int i = 0; i < pages.length; i++) {
      Page page = pages[i];
      for (int node : page.ranking) {
        if (!health[node].suspect(nowNs)) {
          page.left.add(node);
        }
      }
      for (int node : page.ranking) {
        if (!page.left.contains(node)) {
          page.left.add(node);
        }
      }
      for (int copy = 0; copy < copies; copy++) {
        sendNext(i, byNode);
      }
    }
    return made(byNode, nowNs);
  }

  private void sendNext(int i, Map<Integer, List<Integer>> byNode) {
    Integer node = pages[i].left.poll();
    if (node != null) {
      pages[i].sending++;
      byNode.computeIfAbsent(node, n -> new ArrayList<>()).add(i);
    }
  }

  private List<Copy> made(Map<Integer, List<Integer>> byNode, long nowNs) {
    List<Copy> made =
        byNode.entrySet().stream().map(e -> new Copy(e.getKey(), e.getValue())).toList();
    made.forEach(copy -> sent.add(new Sent(copy, nowNs)));
    return made;
  }

  /** Takes a copy off those under way. */
  private Sent ended(Copy copy) {
    for (int i = 0; i < sent.size(); i++) {
      if (sent.get(i).copy.equals(copy)) {
        return sent.remove(i);
      }
    }
    throw new IllegalStateException("no such copy is under way: " + copy);
  }

  /**
   * Has others stand in for nodes that have been silent for too long, as far as pages still wait
   * for copies. What the silent ones store after all counts too.
   */
  public List<Copy> tick(long nowNs) {
    TreeMap<Integer, List<Integer>> byNode = new TreeMap<>();
    for (Sent each : sent) {
      if (!each.silent && nowNs - each.sentNs >= silenceNs) {
        each.silent = true;
        health[each.copy.node()].failed(nowNs);
        for (int i : each.copy.pages()) {
          if (Long.bitCount(pages[i].stored) < acks) {
            sendNext(i, byNode);
          }
        }
      }
    }
    return made(byNode, nowNs);
  }

  /** Nanoseconds until {@link #tick} may have something to do, at least 1. */
  public long untilTickNs(long nowNs) {
    long untilNs = Long.MAX_VALUE;
    for (Sent each : sent) {
      if (!each.silent) {
        untilNs = Math.min(untilNs, silenceNs - (nowNs - each.sentNs));
      }
    }
    return Math.max(1, untilNs);
  }

  /** The node has stored all pages of the copy. */
  public void stored(Copy copy) {
    var _ = ended(copy);
    for (int i : copy.pages()) {
      Page page = pages[i];
      page.sending--;
      page.stored |= 1L << rank(page, copy.node());
      if (Long.bitCount(page.stored) == acks) {
        unacknowledged--;
      }
    }
  }

  private static int rank(Page page, int node) {
    int rank = 0;
    while (page.ranking[rank] != node) {
      rank++;
    }
    return rank;
  }

  /** The node has refused, and may have stored some pages or none; returns who is to stand in. */
  public List<Copy> refused(Copy copy, KvtierException refusal, long nowNs) {
    boolean stoodInFor = ended(copy).silent;
    counts.add(Count.COPIES_FAILED, copy.pages().size());
    if (refusal.code() == Code.UNAVAILABLE || refusal.code() == Code.DEADLINE) {
      health[copy.node()].failed(nowNs);
    }
    boolean callersFault = refusal.code() == Code.INVALID;
    TreeMap<Integer, List<Integer>> byNode = new TreeMap<>();
    for (int i : copy.pages()) {
      Page page = pages[i];
      page.sending--;
      if (!callersFault && !stoodInFor) {
        sendNext(i, byNode);
      }
      if (failure == null && Long.bitCount(page.stored) + page.sending < acks) {
        failure = refusal;
      }
    }
    return made(byNode, nowNs);
  }

  /** Whether every page has as many copies as must be stored before the put returns. */
  public boolean acknowledged() {
    return unacknowledged == 0;
  }

  /** Why the put fails: some page cannot get its copies; null: it does not, so far. */
  public @Nullable KvtierException failure() {
    return failure;
  }

  /** Whether no copy is under way any more. */
  public boolean over() {
    return sent.isEmpty();
  }

  /**
   * Once {@link #over}: whether the page is stored, but not on all its homes: it should be
   * repaired.
   */
  public boolean needsRepair(int i) {
    long homes = (1L << copies) - 1;
    return pages[i].stored != 0 && (pages[i].stored & homes) != homes;
  }
}
