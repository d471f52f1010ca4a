package io.kvtier.deploy.bench;

import java.util.Arrays;
import java.util.function.DoubleSupplier;

/**
 * Times two things in turns, so that what else the machine does falls on both alike, and takes the
 * median of each. The first rounds warm the compiler up and are not counted.
 */
final class Turns {
  private static final int WARMUP_ROUNDS = 6;

  private static final int ROUNDS = 15;
  private static final long ROUND_NS = 40_000_000;

  private Turns() {}

  /** Seconds a call, of ours and of the reference. */
  static double[] medianSeconds(
      Runnable ours, Runnable reference, Benchmark.Progress progress, String what) {
    return medianSeconds(ours, () -> secondsPerCall(reference), progress, what);
  }

  /**
   * Seconds a call, of ours and of a reference that measures itself.
   *
   * @param reference gives the seconds of one call each time
   */
  static double[] medianSeconds(
      Runnable ours, DoubleSupplier reference, Benchmark.Progress progress, String what) {
    double[] oursSeconds = new double[ROUNDS];
    double[] referenceSeconds = new double[ROUNDS];
    progress.at(0, WARMUP_ROUNDS + ROUNDS, "warming up: " + what);
    WarmUp.untilSteady(() -> secondsPerCall(ours));
    for (int round = -WARMUP_ROUNDS; round < ROUNDS; round++) {
      double a = secondsPerCall(ours);
      double b = reference.getAsDouble();
      if (round >= 0) {
        oursSeconds[round] = a;
        referenceSeconds[round] = b;
      }
      progress.at(round + WARMUP_ROUNDS + 1, WARMUP_ROUNDS + ROUNDS, what);
    }
    return new double[] {median(oursSeconds), median(referenceSeconds)};
  }

  /** Seconds a call of ours alone. */
  static double medianSeconds(Runnable ours, Benchmark.Progress progress, String what) {
    return medianSeconds(ours, () -> 0.0, progress, what)[0];
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
