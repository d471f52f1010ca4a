package io.kvtier.gpuworker.core;

/**
 * Chooses the dominant tokens of one KV head for one step: the fewest whose estimated residual mass
 * is within what the policy leaves to the estimate, within its bounds. A fixed number is unsafe:
 * the number needed for the same residual varies a thousandfold between steps of one head. Two
 * passes over the tokens, no sort; ties at the threshold go to the earlier position, so the choice
 * is deterministic. One thread.
 */
public final class TokenChooser {
  /**
   * A head whose exact tokens hold nearly all of its attention needs no others: where less than
   * this part of the allowed residual lies elsewhere, even an estimate that is ten times too low
   * leaves it within the allowance.
   */
  private static final float NEGLIGIBLE = .1f;

  private final MassHistogram histogram = new MassHistogram();

  /**
   * Chooses by mass.
   *
   * @param masses {@code [tokens]}: estimated share of the attention, pooled over the group; not
   *     negative. 0: not to be chosen
   * @param chosen receives the indices chosen, rising; at least {@code min(tokens,
   *     policy.tokensMax())} long
   * @return how many were chosen: 0 if what lies on these tokens is negligible, else at least the
   *     policy's least
   */
  public int choose(HeadPolicy policy, float[] masses, int tokens, int[] chosen) {
    histogram.clear();
    double total = 0;
    for (int t = 0; t < tokens; t++) {
      if (masses[t] > 0) {
        histogram.add(masses[t]);
        total += masses[t];
      }
    }
    if (total <= policy.residualMass() * NEGLIGIBLE) {
      return 0;
    }
    int bucket = MassHistogram.BUCKETS;
    int count = 0;
    double residual = total;
    while (bucket > 0
        && (count < policy.tokensMin() || residual > policy.residualMass())
        && count < policy.tokensMax()) {
      bucket--;
      count += histogram.count(bucket);
      residual -= histogram.mass(bucket);
    }
    return collect(policy, masses, tokens, bucket, count, chosen);
  }

  /**
   * Takes every token above the threshold bucket, and as many of that bucket as the policy still
   * allows.
   */
  private int collect(
      HeadPolicy policy, float[] masses, int tokens, int bucket, int count, int[] chosen) {
    int above = count - (bucket < MassHistogram.BUCKETS ? histogram.count(bucket) : 0);
    int atThreshold = Math.min(count, policy.tokensMax()) - above;
    int n = 0;
    for (int t = 0; t < tokens; t++) {
      if (masses[t] > 0) {
        int own = MassHistogram.bucketOf(masses[t]);
        if (own > bucket || (own == bucket && atThreshold-- > 0)) {
          chosen[n++] = t;
        }
      }
    }
    return n;
  }
}
