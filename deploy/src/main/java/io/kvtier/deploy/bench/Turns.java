package io.kvtier.deploy.bench;

import java.util.Arrays;

/**
 * Times two things in turns, so that what else the machine does falls on both alike, and takes the
 * median of each. The first rounds warm the compiler up and are not counted.
 */
final class Turns {
  private static final int WARMUP_ROUNDS = 6;
  private static final int ROUNDS = 15;
  private static final long ROUND_NS = 40_000_000;

  private Turns() {}

  /**
   * Seconds a call, of ours and of the reference.
   *
   * @param done rounds done before, for the progress
   * @param total rounds of the whole benchmark
   */
  static double[] medianSeconds(
      Runnable ours,
      Runnable reference,
      Benchmark.Progress progress,
      String what,
      int done,
      int total) {
    double[] oursSeconds = new double[ROUNDS];
    double[] referenceSeconds = new double[ROUNDS];
    for (int round = -WARMUP_ROUNDS; round < ROUNDS; round++) {
      double a = secondsPerCall(ours);
      double b = secondsPerCall(reference);
      if (round >= 0) {
        oursSeconds[round] = a;
        referenceSeconds[round] = b;
      }
      progress.at(done + round + WARMUP_ROUNDS + 1, total, what);
    }
    return new double[] {median(oursSeconds), median(referenceSeconds)};
  }

  /** Rounds of one comparison, warm-up included. */
  static int rounds() {
    return WARMUP_ROUNDS + ROUNDS;
  }

  private static double secondsPerCall(Runnable call) {
    long startNs = System.nanoTime();
    long calls = 0;
    long spentNs;
    do {
      call.run();
      calls++;
      spentNs = System.nanoTime() - startNs;
    } while (spentNs < ROUND_NS);
    return spentNs / 1e9 / calls;
  }

  private static double median(double[] values) {
    double[] sorted = values.clone();
    Arrays.sort(sorted);
    return sorted[sorted.length / 2];
  }
}
