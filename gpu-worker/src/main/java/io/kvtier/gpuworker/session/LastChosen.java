package io.kvtier.gpuworker.session;

import io.kvtier.gpuworker.core.HeadPolicy;
import io.kvtier.gpuworker.device.CodesTaker;
import io.kvtier.rpc.PlanLimits;
import java.util.Arrays;
import java.util.List;

/**
 * The tokens that each head of a layer chose for its last query, and what share of a query's tokens
 * the query before had chosen too, as it was of late. Heads differ much in that, and models: where
 * successive queries are much alike a head's next tokens are mostly its last ones. A plan may say
 * beforehand which heads' are. Guarded by the layer, but for {@link #isWorthFetching}.
 */
final class LastChosen {
  /** Queries before shares are trusted. */
  private static final int QUERIES_MIN = 4;

  /** What the newest query weighs in a share, once there are some. */
  private static final float NEWEST = .1f;

  /** One a KV head. */
  private List<HeadPolicy> policies = List.of();

  /** {@code [kvHeads][]}, rising; the first {@code counts[head]} are valid. */
  private int[][] positions = {};

  private int[] counts = {};

  /** {@code [kvHeads]}. */
  private float[] shares = {};

  /** Queries that shares are the mean of. */
  private int compared;

  private volatile boolean worthFetching;

  /** Heads choose by other policies from now on. */
  void follow(List<HeadPolicy> others) {
    policies = others;
    counts = new int[0];
    worthFetching = false;
  }

  /**
   * Takes what a query chose.
   *
   * @param heads KV heads of the layer
   * @param lost rows of it that the device has not kept
   */
  void note(CodesTaker taker, int heads, int lost) {
    boolean compares = counts.length == heads;
    if (!compares) {
      positions = new int[heads][0];
      counts = new int[heads];
      shares = new float[heads];
      compared = 0;
    }
    float weight = Math.max(NEWEST, 1f / (compared + 1));
    compared += compares ? 1 : 0;
    boolean any = false;
    for (int head = 0; head < heads; head++) {
      int count = taker.rowSections(head) == 0 ? 0 : taker.chosenCount(head);
      if (compares && count > 0) {
        float share = common(taker, head, count) / (float) count;
        shares[head] += weight * (share - shares[head]);
      }
      take(taker, head, count);
      any |= recurs(head);
    }
    worthFetching = lost > 0 && any;
  }

  /** How many of a head's chosen tokens the query before chose too. */
  private int common(CodesTaker taker, int head, int count) {
    int common = 0;
    int before = 0;
    for (int i = 0; i < count; i++) {
      int position = taker.chosenPosition(head, i);
      while (before < counts[head] && positions[head][before] < position) {
        before++;
      }
      common += before < counts[head] && positions[head][before] == position ? 1 : 0;
    }
    return common;
  }

  private void take(CodesTaker taker, int head, int count) {
    if (positions[head].length < count) {
      positions[head] = Arrays.copyOf(positions[head], count + count / 4);
    }
    for (int i = 0; i < count; i++) {
      positions[head][i] = taker.chosenPosition(head, i);
    }
    counts[head] = count;
  }

  /**
   * Whether rows of heads that recur have not been kept on the device: they can be fetched before
   * the next query says what else it needs. Of any thread.
   */
  boolean isWorthFetching() {
    return worthFetching;
  }

  /** Whether a head mostly chooses what it chose before, by its plan or as it is measured. */
  boolean recurs(int head) {
    if (head >= counts.length || counts[head] == 0) {
      return false;
    }
    return switch (policies.get(head).ahead()) {
      case NOTHING -> false;
      case LAST -> true;
      case MEASURED -> compared >= QUERIES_MIN && shares[head] >= PlanLimits.OVERLAP_AHEAD_MIN;
    };
  }

  /** Queries that were compared with the one before. */
  int compared() {
    return compared;
  }

  /** The share of a head's tokens that it had chosen the time before, 0..1, of late. */
  float share(int head) {
    return shares[head];
  }

  int count(int head) {
    return counts[head];
  }

  int position(int head, int index) {
    return positions[head][index];
  }
}
