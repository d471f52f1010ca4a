package io.kvtier.replica;

import io.kvtier.KvtierException;
import io.kvtier.page.PageKey;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.stream.IntStream;
import java.util.stream.Stream;

/**
 * Ranks the nodes of one membership epoch for each page by rendezvous hashing (Thaler and
 * Ravishankar, 1998): every node has a weight with every key, and a page's homes are the nodes of
 * most weight. A node that joins takes over only the pages that it ranks high for; those of a node
 * that leaves go to their next in rank; all others stay. Nothing but the node ids and the key
 * counts, so all clients agree. Immutable.
 */
public final class Rendezvous {
  private final long epoch;
  private final List<String> nodes;
  private final Map<String, Long> runs;
  private final List<String> draining;
  private final List<String> everyone;
  private final long[] seeds;
  private final long[] drainingSeeds;

  /** The nodes of an epoch, of runs that are not known. */
  public Rendezvous(long epoch, Collection<String> nodes) {
    this(epoch, nodes, Map.of());
  }

  /**
   * The nodes of an epoch.
   *
   * @param nodes ids, each once, in any order
   * @param runs of nodes by id: another number after each start, as far as known
   */
  public Rendezvous(long epoch, Collection<String> nodes, Map<String, Long> runs) {
    this(epoch, nodes, runs, List.of());
  }

  /**
   * The nodes of an epoch, some of which drain.
   *
   * @param nodes ids of those that pages go to, each once, in any order
   * @param runs of nodes by id: another number after each start, as far as known
   * @param draining ids of those that only serve what they have: no page's homes; none of {@code
   *     nodes}
   */
  public Rendezvous(
      long epoch, Collection<String> nodes, Map<String, Long> runs, Collection<String> draining) {
    this.draining = draining.stream().sorted().toList();
    this.runs = Map.copyOf(runs);
    this.epoch = epoch;
    this.nodes = nodes.stream().sorted().toList();
    if (this.nodes.stream().distinct().count() != nodes.size()) {
      throw KvtierException.invalid("nodes are %s; each id must be there once", nodes);
    }
    this.seeds = seeds(this.nodes);
    this.drainingSeeds = seeds(this.draining);
    this.everyone = Stream.concat(this.nodes.stream(), this.draining.stream()).toList();
  }

  /** The membership epoch. */
  public long epoch() {
    return epoch;
  }

  /** Node ids in order; what {@link #ranking} gives are indexes in it. */
  public List<String> nodes() {
    return nodes;
  }

  /** Ids of the nodes that are no page's homes, in order. */
  public List<String> draining() {
    return draining;
  }

  /**
   * Ids of all nodes that may have pages: {@link #nodes}, then {@link #draining}. What {@link
   * #sources} gives are indexes in it.
   */
  public List<String> everyone() {
    return everyone;
  }

  /**
   * The page's nodes by falling rank, as indexes in {@link #nodes}, each once: the first R are its
   * homes.
   *
   * @param countMax most nodes to give
   */
  public int[] ranking(PageKey key, int countMax) {
    return ranking(seeds, key, countMax);
  }

  /**
   * The nodes that a page is looked for on, in this order, as indexes in {@link #everyone}, each
   * once: its homes; then those that drain, by falling rank, since they were the homes before; then
   * the others.
   *
   * @param replicas homes of a page
   * @param countMax most nodes to give
   */
  public int[] sources(PageKey key, int replicas, int countMax) {
    int[] placed = ranking(seeds, key, countMax);
    if (drainingSeeds.length == 0) {
      return placed;
    }
    int[] drained = ranking(drainingSeeds, key, countMax);
    int homes = Math.min(replicas, placed.length);
    return IntStream.concat(
            IntStream.concat(
                Arrays.stream(placed, 0, homes),
                Arrays.stream(drained).map(node -> nodes.size() + node)),
            Arrays.stream(placed, homes, placed.length))
        .limit(countMax)
        .toArray();
  }

  private static int[] ranking(long[] seeds, PageKey key, int countMax) {
    int count = Math.min(countMax, seeds.length);
    int[] ranking = new int[count];
    long[] weights = new long[count];
    int size = 0;
    for (int node = 0; node < seeds.length; node++) {
      long weight = weight(seeds[node], key);
      int at = size;
      // Equal weights keep the order of ids: strictly larger ones alone move ahead.
      while (at > 0 && Long.compareUnsigned(weight, weights[at - 1]) > 0) {
        at--;
      }
      if (at < count) {
        int kept = Math.min(size, count - 1);
        System.arraycopy(ranking, at, ranking, at + 1, kept - at);
        System.arraycopy(weights, at, weights, at + 1, kept - at);
        ranking[at] = node;
        weights[at] = weight;
        size = kept + 1;
      }
    }
    return ranking;
  }

  /** Whether the nodes are the same, and none has been started anew. */
  public boolean sameMembers(Rendezvous other) {
    return nodes.equals(other.nodes) && runs.equals(other.runs);
  }

  /**
   * Whether one of the page's homes was not among its homes in an earlier epoch, or has been
   * started anew since and may have come back empty.
   */
  public boolean hasNewHome(PageKey key, int replicas, Rendezvous earlier) {
    List<String> before = earlier.homes(key, replicas);
    return homes(key, replicas).stream()
        .anyMatch(home ->
            !before.contains(home) || !Objects.equals(runs.get(home), earlier.runs.get(home)));
  }

  /** Ids of the page's homes, by falling rank; fewer than asked where there are fewer nodes. */
  public List<String> homes(PageKey key, int replicas) {
    return Arrays.stream(ranking(key, replicas)).mapToObj(nodes::get).toList();
  }

  private static long[] seeds(List<String> ids) {
    return ids.stream().mapToLong(Rendezvous::seed).toArray();
  }

  /** FNV-1a over the id, then mixed. */
  private static long seed(String nodeId) {
    long hash = 0xCBF2_9CE4_8422_2325L;
    for (byte b : nodeId.getBytes(StandardCharsets.UTF_8)) {
      hash = (hash ^ (b & 0xFF)) * 0x100_0000_01B3L;
    }
    return mix(hash);
  }

  private static long weight(long seed, PageKey key) {
    return mix(mix(mix(mix(seed ^ key.w0()) + key.w1()) ^ key.w2()) + key.w3());
  }

  /** The finalizer of SplittableRandom: each bit of the input turns half of the output's. */
  private static long mix(long z) {
    z = (z ^ z >>> 30) * 0xBF58_476D_1CE4_E5B9L;
    z = (z ^ z >>> 27) * 0x94D0_49BB_1331_11EBL;
    return z ^ z >>> 31;
  }
}
