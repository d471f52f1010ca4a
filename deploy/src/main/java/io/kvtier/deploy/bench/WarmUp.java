package io.kvtier.deploy.bench;

import java.util.function.DoubleSupplier;

/**
 * Runs what is to be measured until the compiler has done with it. Warm is what has not become
 * faster for a while; vector code is a hundred times slower before, a gRPC call ten times.
 */
final class WarmUp {
  private static final long STEADY_NS = 2_000_000_000L;
  private static final long NS_MAX = 12_000_000_000L;
  private static final double FASTER = .9;

  private WarmUp() {}

  /**
   * Runs until steady.
   *
   * @param round runs for some 10 to 200 ms and gives its time a call, in any unit
   */
  static void untilSteady(DoubleSupplier round) {
    long startNs = System.nanoTime();
    long lastGainNs = startNs;
    double best = Double.POSITIVE_INFINITY;
    long nowNs = startNs;
    while (nowNs - lastGainNs < STEADY_NS && nowNs - startNs < NS_MAX) {
      double time = round.getAsDouble();
      nowNs = System.nanoTime();
      if (time < FASTER * best) {
        best = time;
        lastGainNs = nowNs;
      }
    }
  }
}
