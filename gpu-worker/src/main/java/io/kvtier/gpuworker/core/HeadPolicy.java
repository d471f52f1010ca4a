package io.kvtier.gpuworker.core;

import static io.kvtier.KvtierException.requireInRange;

import io.kvtier.KvtierException;
import io.kvtier.page.Residence;

/**
 * How one KV head attends.
 *
 * @param residence what is on the device; heads with all or nothing there attend to every token,
 *     and the other fields mean nothing then
 * @param tokensMin fewest dominant tokens a step, 1..tokensMax
 * @param tokensMax most dominant tokens a step
 * @param residualMass attention mass, 0..1, that may be left to the estimate
 * @param bits of a dense head's codes in TailorKV mode, 1..8; elsewhere pages say
 * @param ahead what is fetched ahead of a query without a hint
 * @param onePlaneErrs whether its scores by one key plane are too far off to choose by
 */
public record HeadPolicy(
    Residence residence,
    int tokensMin,
    int tokensMax,
    float residualMass,
    int bits,
    Ahead ahead,
    boolean onePlaneErrs) {
  private static final int PAGE_BITS = 4;

  /** Every token is attended, from resident codes. */
  public static final HeadPolicy DENSE = new HeadPolicy(Residence.DENSE, 1, 1, 0);

  /** Every token is attended, from codes that are streamed through. */
  public static final HeadPolicy STREAMED = new HeadPolicy(Residence.STREAMED, 1, 1, 0);

  public HeadPolicy {
    requireInRange("bits", bits, 1, 8);
    requireInRange("dominant_tokens_max", tokensMax, 1, 1 << 20);
    requireInRange("dominant_tokens_min", tokensMin, 1, tokensMax);
    if (!(residualMass >= 0 && residualMass <= 1)) {
      throw KvtierException.invalid("residual_mass is %s; it must be 0..1", residualMass);
    }
  }

  /** A head that chooses among all tokens by a sketch of two planes. */
  public static HeadPolicy sparse(int tokensMin, int tokensMax, float residualMass) {
    return new HeadPolicy(Residence.TWO_PLANES, tokensMin, tokensMax, residualMass);
  }

  public boolean dense() {
    return residence == Residence.DENSE;
  }

  public boolean streamed() {
    return residence == Residence.STREAMED;
  }

  /** Whether it chooses tokens by a sketch. */
  public boolean sketched() {
    return Residence.SKETCHED.contains(residence);
  }

  /** A head whose codes are those of its pages. */
  public HeadPolicy(Residence residence, int tokensMin, int tokensMax, float residualMass) {
    this(residence, tokensMin, tokensMax, residualMass, PAGE_BITS, Ahead.MEASURED, false);
  }

  /** The same with codes of other bits. */
  public HeadPolicy withBits(int other) {
    return new HeadPolicy(
        residence, tokensMin, tokensMax, residualMass, other, ahead, onePlaneErrs);
  }

  /** The same choice of tokens from another sketch. */
  public HeadPolicy withResidence(Residence other) {
    return new HeadPolicy(other, tokensMin, tokensMax, residualMass, bits, ahead, onePlaneErrs);
  }

  /** The same with something else fetched ahead. */
  public HeadPolicy withAhead(Ahead other) {
    return new HeadPolicy(residence, tokensMin, tokensMax, residualMass, bits, other, onePlaneErrs);
  }

  /** The same, with something known of its scores by one plane. */
  public HeadPolicy withOnePlaneErrs(boolean errs) {
    return new HeadPolicy(residence, tokensMin, tokensMax, residualMass, bits, ahead, errs);
  }
}
