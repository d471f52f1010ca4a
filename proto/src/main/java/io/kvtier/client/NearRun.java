package io.kvtier.client;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.client.NearPages.Attended;
import io.kvtier.client.NearPages.Queries;
import io.kvtier.page.PageKey;
import io.kvtier.replica.NodeHealth;
import io.kvtier.replica.Rendezvous;
import io.kvtier.v1.Miss;
import io.kvtier.v1.PageMiss;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.FutureTask;
import java.util.function.Consumer;
import org.jspecify.annotations.Nullable;

/**
 * One call to attend near replicated pages: each page at its first home, at the next in rank where
 * that one lacks it or does not answer. The nodes of a round work at the same time; what they
 * answer is merged in the order of their ids. Not to be used twice.
 */
final class NearRun {
  private final Rendezvous members;
  private final ReplicaNodes nodes;
  private final int[][] rankings;
  private final NodeHealth[] health;
  private final List<PageKey> keys;
  private final Queries queries;
  private final long[] tokens;
  private final Consumer<PageKey> lacked;
  private final NearSum sum;
  private final List<PageMiss> misses = new ArrayList<>();

  /** By page: how many of its ranking have been asked. */
  private final int[] asked;

  private @Nullable KvtierException failure;

  /** What one node is asked for in one round. */
  private record NodeCall(int node, List<Integer> pages, FutureTask<Optional<Attended>> answer) {}

  /**
   * A call.
   *
   * @param rankings by page, as indexes in all members
   * @param tokens empty, or a bit set a page
   * @param lacked is told which pages a home lacks
   */
  NearRun(
      Rendezvous members,
      ReplicaNodes nodes,
      int[][] rankings,
      List<PageKey> keys,
      Queries queries,
      long[] tokens,
      Consumer<PageKey> lacked) {
    this.members = members;
    this.nodes = nodes;
    this.rankings = rankings;
    this.health = nodes.health(members.everyone());
    this.keys = keys;
    this.queries = queries;
    this.tokens = tokens;
    this.lacked = lacked;
    this.sum = new NearSum(queries);
    this.asked = new int[keys.size()];
  }

  /**
   * Attends to all pages.
   *
   * @return empty: a node's transport cannot attend
   * @throws KvtierException EXHAUSTED if a node has too much to do; UNAVAILABLE if no node that may
   *     have a page answers
   */
  Optional<Attended> run(long nowNs) {
    List<Integer> left = new ArrayList<>();
    for (int page = 0; page < keys.size(); page++) {
      // A node that has just failed is asked after the others.
      int first = rankings[page][0];
      if (health[first].suspect(nowNs)) {
        System.arraycopy(rankings[page], 1, rankings[page], 0, rankings[page].length - 1);
        rankings[page][rankings[page].length - 1] = first;
      }
      left.add(page);
    }
    while (!left.isEmpty()) {
      Map<Integer, List<Integer>> byNode = new TreeMap<>();
      for (int page : left) {
        int node = rankings[page][asked[page]++];
        byNode.computeIfAbsent(node, n -> new ArrayList<>()).add(page);
      }
      left = new ArrayList<>();
      if (!round(byNode, left, nowNs)) {
        return Optional.empty();
      }
    }
    if (!misses.isEmpty() && failure != null) {
      // The node that does not answer may have them.
      throw failure;
    }
    Attended all = sum.result();
    List<PageMiss> missing =
        misses.stream().sorted((a, b) -> Integer.compare(a.getIndex(), b.getIndex())).toList();
    return Optional.of(
        new Attended(
            all.output(), all.lse(), all.tokens(), missing, all.bytesMoved(), all.parts()));
  }

  /** Asks nodes for their pages and lists those to ask others for; false: one cannot attend. */
  private boolean round(Map<Integer, List<Integer>> byNode, List<Integer> left, long nowNs) {
    List<NodeCall> calls = new ArrayList<>();
    byNode.forEach((node, pages) -> {
      FutureTask<Optional<Attended>> answer = new FutureTask<>(() -> ask(node, pages));
      calls.add(new NodeCall(node, pages, answer));
      Thread.ofVirtual().name("kvtier-near-", 0).start(answer);
    });
    boolean can = true;
    KvtierException full = null;
    for (NodeCall call : calls) {
      try {
        Optional<Attended> part = get(call.answer());
        can &= part.isPresent();
        part.ifPresent(attended -> take(attended, call.pages(), left));
      } catch (KvtierException e) {
        if (e.code() == Code.EXHAUSTED) {
          full = e;
        } else {
          failure = e;
          health[call.node()].failed(nowNs);
          call.pages().forEach(page -> next(page, Miss.MISS_ABSENT, left));
        }
      }
    }
    if (full != null) {
      throw full;
    }
    return can;
  }

  private Optional<Attended> ask(int node, List<Integer> pages) {
    List<PageKey> some = pages.stream().map(keys::get).toList();
    long[] wanted =
        tokens.length == 0 ? tokens : pages.stream().mapToLong(page -> tokens[page]).toArray();
    List<Optional<Attended>> answer = new ArrayList<>();
    nodes.call(
        members.everyone().get(node),
        transport -> answer.add(transport.attend(some, queries, wanted)));
    return answer.getFirst();
  }

  private static Optional<Attended> get(FutureTask<Optional<Attended>> call) {
    try {
      return call.get();
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new KvtierException(Code.UNAVAILABLE, "interrupted while pages are attended to", e);
    } catch (ExecutionException e) {
      throw e.getCause() instanceof KvtierException refused
          ? refused
          : new KvtierException(Code.INTERNAL, "attending near pages failed: " + e, e);
    }
  }

  private void take(Attended part, List<Integer> pages, List<Integer> left) {
    sum.add(part, index -> -1);
    for (PageMiss miss : part.misses()) {
      int page = pages.get(miss.getIndex());
      lacked.accept(keys.get(page));
      next(page, miss.getMiss(), left);
    }
  }

  /** Has a page asked for at its next node, or counts it as missed at every one. */
  private void next(int page, Miss why, List<Integer> left) {
    if (asked[page] < rankings[page].length) {
      left.add(page);
    } else {
      misses.add(PageMiss.newBuilder().setIndex(page).setMiss(why).build());
    }
  }
}
