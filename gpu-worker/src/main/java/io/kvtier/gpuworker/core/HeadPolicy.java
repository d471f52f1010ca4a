package io.kvtier.gpuworker.core;

import static io.kvtier.KvtierException.requireInRange;

import io.kvtier.KvtierException;

/**
 * How one KV head attends.
 *
 * @param dense every token is attended from resident codes; the other fields mean nothing then
 * @param tokensMin fewest dominant tokens a step, 1..tokensMax
 * @param tokensMax most dominant tokens a step
 * @param residualMass attention mass, 0..1, that may be left to the estimate
 */
public record HeadPolicy(boolean dense, int tokensMin, int tokensMax, float residualMass) {
  /** Every token is attended. */
  public static final HeadPolicy DENSE = new HeadPolicy(true, 1, 1, 0);

  public HeadPolicy {
    requireInRange("dominant_tokens_max", tokensMax, 1, 1 << 20);
    requireInRange("dominant_tokens_min", tokensMin, 1, tokensMax);
    if (!(residualMass >= 0 && residualMass <= 1)) {
      throw KvtierException.invalid("residual_mass is %s; it must be 0..1", residualMass);
    }
  }
}
