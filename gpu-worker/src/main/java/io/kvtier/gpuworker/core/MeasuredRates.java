package io.kvtier.gpuworker.core;

import io.kvtier.rpc.PlanLimits;

/**
 * How many bytes a microsecond come from a worker's tiers, and how many its device attends to, over
 * all its sessions: what a planner weighs one against the other by. Of each, the time that a
 * further byte takes ({@link LinearCost}: round trips and whatever a step does beside its bytes are
 * left out), averaged exponentially.
 *
 * <p>Plans are to change seldom, since outputs of two plans differ in how they are rounded: a rate
 * is told as a power of two, from {@link #OBSERVATIONS_MIN} observations on, and as before until it
 * is clearly another. A pure function of what it is told. Safe for any number of threads.
 */
public final class MeasuredRates {
  /** Fewer tell nothing: first calls find everything cold. */
  static final int OBSERVATIONS_MIN = 256;

  /** What the newest observation weighs in the mean, once there are some. */
  private static final double NEWEST = 1. / 64;

  /** A told rate stands until the mean is so many times as much, or as little. */
  private static final double STANDS = 1.7;

  private static final double PRIOR = 1;
  private static final double NS_PER_US = 1e3;

  // As FetchOrAttend begins; two cores, and what a step does besides.
  private final Rate fetching = new Rate(200_000, 1 / 1.5);
  private final Rate attending = new Rate(500_000, 1 / 8.);

  /** One of them. */
  private static final class Rate {
    private final LinearCost cost;
    private double byteNs;
    private int observations;
    private int told;

    Rate(double fixedNs, double unitNs) {
      this.cost = new LinearCost(fixedNs, unitNs, PRIOR);
    }

    void observe(long bytes, long ns) {
      if (bytes <= 0 || ns <= 0) {
        return;
      }
      cost.observe(bytes, ns);
      observations = Math.min(observations + 1, Integer.MAX_VALUE - 1);
      byteNs += Math.max(NEWEST, 1. / observations) * (cost.unitNs() - byteNs);
      if (observations >= OBSERVATIONS_MIN) {
        tell(NS_PER_US / Math.max(byteNs, NS_PER_US / PlanLimits.RATE_MAX));
      }
    }

    private void tell(double rate) {
      if (told == 0 || rate > STANDS * told || rate * STANDS < told) {
        long power = Math.round(Math.log(Math.max(1, rate)) / Math.log(2));
        told = (int) Math.min(PlanLimits.RATE_MAX, 1L << power);
      }
    }
  }

  /** So many bytes came from the tier in one fetch, which took so long. */
  public synchronized void fetched(long bytes, long ns) {
    fetching.observe(bytes, ns);
  }

  /** A query's attention to so many bytes of codes and sketches took so long. */
  public synchronized void attended(long bytes, long ns) {
    attending.observe(bytes, ns);
  }

  /** Bytes a microsecond that come from tiers, a power of two at most; 0: not measured. */
  public synchronized int fetchRate() {
    return fetching.told;
  }

  /** Bytes a microsecond that are attended to, likewise. */
  public synchronized int attendRate() {
    return attending.told;
  }
}
