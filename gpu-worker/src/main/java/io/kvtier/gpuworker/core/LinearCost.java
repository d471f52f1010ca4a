package io.kvtier.gpuworker.core;

/**
 * How long something takes that has a fixed part and one for each unit, from how long it took:
 * least squares in which older observations count less and less. Until there are observations of
 * different sizes, the prior tells the two parts apart. One thread.
 */
final class LinearCost {
  /** What an observation weighs when the next is made. */
  private static final double KEEP = .9;

  /**
   * An observation counts as so many times what was expected at most: on a busy machine single ones
   * are held up for a hundred times as long, and tell nothing of the next. What has really become
   * slower is learnt in a few.
   */
  private static final int SURPRISE = 3;

  /** What all before an observation that took so much less than expected weighs beside it. */
  private static final double KEEP_SLOWER = .1;

  /** Where next to nothing was expected, so much is believed at once. */
  private static final double SURPRISE_LEAST_NS = 100_000;

  /** What the prior's two points weigh, always, where it is only to tell the two parts apart. */
  private static final double PRIOR = .02;

  private final double prior;
  private final double priorFixedNs;
  private final double priorUnitNs;
  private double weight;
  private double units;
  private double times;
  private double unitSquares;
  private double products;
  private boolean any;

  /** What it is taken to be before anything is observed. */
  LinearCost(double fixedNs, double unitNs) {
    this(fixedNs, unitNs, PRIOR);
  }

  /**
   * The same with a prior that weighs more, so that observations of much the same size, which tell
   * little of the two parts, are not taken to tell them.
   *
   * @param prior what each of its two points weighs, beside 10 at most for all observations
   */
  LinearCost(double fixedNs, double unitNs, double prior) {
    this.prior = prior;
    this.priorFixedNs = fixedNs;
    this.priorUnitNs = unitNs;
  }

  /** So many units took so long. */
  void observe(long count, long took) {
    double ns = any ? Math.min((double) took, surprise(expectedNs(count))) : took;
    // A first call that found everything cold, say: nothing takes less time than it takes by
    // chance.
    double keep = any && SURPRISE * ns < expectedNs(count) ? KEEP_SLOWER : KEEP;
    any = true;
    weight = keep * weight + 1;
    units = keep * units + count;
    times = keep * times + ns;
    unitSquares = keep * unitSquares + (double) count * count;
    products = keep * products + count * ns;
  }

  private static double surprise(double expectedNs) {
    return Math.max(SURPRISE_LEAST_NS, SURPRISE * expectedNs);
  }

  boolean observed() {
    return any;
  }

  /** How long so many units are expected to take, in nanoseconds; never less than nothing. */
  double expectedNs(long count) {
    if (!any) {
      return priorFixedNs + priorUnitNs * count;
    }
    double unit = slope();
    double fixed = fixedNs(unit);
    return fixed < 0 ? proportion() * count : fixed + unit * count;
  }

  /** How long a further unit is expected to take, in nanoseconds; never less than nothing. */
  double unitNs() {
    if (!any) {
      return priorUnitNs;
    }
    double unit = slope();
    return fixedNs(unit) < 0 ? proportion() : unit;
  }

  private double slope() {
    double w = weight + 2 * prior;
    double x = units + prior * mean();
    double spread = w * squares() - x * x;
    return spread > 0 ? Math.max(0, (w * productsWithPrior() - x * timesWithPrior()) / spread) : 0;
  }

  /** Of a line without a fixed part. */
  private double proportion() {
    return productsWithPrior() / Math.max(1, squares());
  }

  private double squares() {
    return unitSquares + prior * mean() * mean();
  }

  private double productsWithPrior() {
    return products + prior * mean() * scale() * (priorFixedNs + priorUnitNs * mean());
  }

  private double fixedNs(double unit) {
    return (timesWithPrior() - unit * (units + prior * mean())) / (weight + 2 * prior);
  }

  /**
   * The prior's points: nothing, and the mean size. Their times are scaled to the mean observed
   * one, so that only the proportion of the two parts is taken from the prior.
   */
  private double timesWithPrior() {
    return times + prior * scale() * (2 * priorFixedNs + priorUnitNs * mean());
  }

  private double scale() {
    return times / weight / Math.max(1, priorFixedNs + priorUnitNs * mean());
  }

  private double mean() {
    return units / weight;
  }
}
