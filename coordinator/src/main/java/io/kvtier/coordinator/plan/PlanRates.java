package io.kvtier.coordinator.plan;

import static io.kvtier.KvtierException.requireInRange;

import io.kvtier.rpc.PlanLimits;

/**
 * What time is worth in bytes, by which a plan weighs what is fetched against what is attended to.
 *
 * @param fetch bytes a microsecond that come from the tier, 1..1000000
 * @param attend bytes a microsecond that attention reads of codes and a scan of sketches, likewise
 */
public record PlanRates(int fetch, int attend) {
  /** Where nothing was measured: a fast network, or loopback, and two processor cores. */
  public static final PlanRates DEFAULT = new PlanRates(1_500, 8_000);

  private static final double NS_PER_US = 1e3;

  public PlanRates {
    requireInRange("fetch_rate", fetch, 1, PlanLimits.RATE_MAX);
    requireInRange("attend_rate", attend, 1, PlanLimits.RATE_MAX);
  }

  /**
   * Rates as a worker tells them; 0: it has not measured that one.
   *
   * @throws io.kvtier.KvtierException INVALID with name, value and bound
   */
  public static PlanRates told(int fetch, int attend) {
    PlanLimits.requireRate("fetch_rate", fetch);
    PlanLimits.requireRate("attend_rate", attend);
    return new PlanRates(fetch == 0 ? DEFAULT.fetch : fetch, attend == 0 ? DEFAULT.attend : attend);
  }

  /** Nanoseconds for so many bytes that are fetched, and so many that are attended to. */
  double timeNs(long fetched, long attended) {
    return fetched / (fetch / NS_PER_US) + attended / (attend / NS_PER_US);
  }
}
