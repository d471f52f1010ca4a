package io.kvtier.deploy.plan;

import java.util.Arrays;
import java.util.BitSet;
import java.util.Comparator;
import java.util.stream.IntStream;

/**
 * What share of the tokens that hold all but a hundredth of a query's attention held it for the
 * query before too, for one KV head. One thread.
 */
final class Overlap {
  private static final double RESIDUAL_MASS = .01;
  private static final int TOKENS_MIN = 64;

  private BitSet before = new BitSet();
  private double sum;
  private int compared;

  /**
   * Takes the next query.
   *
   * @param masses of all tokens
   * @param end tokens from there on are always attended to
   */
  void add(float[] masses, int end) {
    BitSet chosen = new BitSet();
    int[] byMass =
        IntStream.range(0, Math.clamp(end, 0, masses.length))
            .boxed()
            .sorted(Comparator.comparingDouble(token -> -masses[token]))
            .mapToInt(token -> token)
            .toArray();
    double left = Arrays.stream(byMass).mapToDouble(token -> masses[token]).sum();
    for (int i = 0; i < byMass.length && (i < TOKENS_MIN || left > RESIDUAL_MASS); i++) {
      chosen.set(byMass[i]);
      left -= masses[byMass[i]];
    }
    if (!before.isEmpty() && !chosen.isEmpty()) {
      BitSet common = (BitSet) chosen.clone();
      common.and(before);
      sum += (double) common.cardinality() / chosen.cardinality();
      compared++;
    }
    before = chosen;
  }

  /** The mean share, 0..1; 0: nothing was compared. */
  float share() {
    return compared == 0 ? 0 : (float) (sum / compared);
  }
}
