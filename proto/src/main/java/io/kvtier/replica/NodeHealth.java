package io.kvtier.replica;

import java.util.Arrays;

/**
 * How one node has answered of late: how long its answers take to begin, and whether it has just
 * failed. A node that failed is asked last for a while, longer with each failure in a row. Times
 * are of one monotonic clock and may overflow. Safe for any number of threads.
 */
public final class NodeHealth {
  private static final int SAMPLES = 256;

  /** Below this a 99th percentile says nothing. */
  private static final int SAMPLES_MIN = 100;

  /** The percentile is found anew after so many samples. */
  private static final int SAMPLES_STALE = 32;

  private static final long SUSPECT_MIN_NS = 250_000_000L;
  private static final long SUSPECT_MAX_NS = 8_000_000_000L;

  private final long[] latenciesNs = new long[SAMPLES];
  private int next;
  private int count;
  private int fresh;
  private long p99Ns = Long.MAX_VALUE;
  private int failures;
  private long suspectUntilNs;

  /** The node has begun to answer after so long. */
  public synchronized void answered(long latencyNs) {
    failures = 0;
    latenciesNs[next] = latencyNs;
    next = (next + 1) % SAMPLES;
    count = Math.min(count + 1, SAMPLES);
    fresh++;
    if (count >= SAMPLES_MIN && (fresh >= SAMPLES_STALE || p99Ns == Long.MAX_VALUE)) {
      long[] sorted = Arrays.copyOf(latenciesNs, count);
      Arrays.sort(sorted);
      p99Ns = sorted[count * 99 / 100];
      fresh = 0;
    }
  }

  /** The node did not answer. */
  public synchronized void failed(long nowNs) {
    long forNs = Math.min(SUSPECT_MAX_NS, SUSPECT_MIN_NS << Math.min(failures, 10));
    failures++;
    suspectUntilNs = nowNs + forNs;
  }

  /** Whether the node is better asked last. */
  public synchronized boolean suspect(long nowNs) {
    return failures > 0 && suspectUntilNs - nowNs > 0;
  }

  /**
   * The 99th percentile of the time until an answer begins; {@link Long#MAX_VALUE}: not known yet.
   */
  public synchronized long p99Ns() {
    return p99Ns;
  }
}
