package io.kvtier.gpuworker.core;

/**
 * Chooses the dominant tokens of one KV head for one step: the fewest whose estimated residual mass
 * is within what the policy leaves to the estimate, within its bounds. A fixed number is unsafe:
 * the number needed for the same residual varies a thousandfold between steps of one head. Two
 * passes over the candidates, no sort; ties at the threshold go to the earlier position, so the
 * choice is deterministic. One thread.
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
   * @param candidates at least the policy's most of largest mass, of all tokens; a mass is the
   *     estimated share of the attention, pooled over the group
   * @param total mass of all tokens, candidates or not
   * @param chosen receives the candidates' indices chosen, rising; at least {@code min(candidates,
   *     policy.tokensMax())} long
   * @return how many were chosen: 0 if what lies on all tokens is negligible, else at least the
   *     policy's least
   */
  public int choose(HeadPolicy policy, Candidates candidates, double total, int[] chosen) {
    if (total <= policy.residualMass() * NEGLIGIBLE) {
      return 0;
    }
    histogram.clear();
    for (int i = 0; i < candidates.count; i++) {
      histogram.add(candidates.masses[i]);
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
    return collect(policy, candidates, bucket, count, chosen);
  }

  /**
   * Takes every token above the threshold bucket, and as many of that bucket as the policy still
   * allows.
   */
  private int collect(
      HeadPolicy policy, Candidates candidates, int bucket, int count, int[] chosen) {
    int above = count - (bucket < MassHistogram.BUCKETS ? histogram.count(bucket) : 0);
    int atThreshold = Math.min(count, policy.tokensMax()) - above;
    int n = 0;
    for (int i = 0; i < candidates.count; i++) {
      int own = MassHistogram.bucketOf(candidates.masses[i]);
      if (own > bucket || (own == bucket && atThreshold-- > 0)) {
        chosen[n++] = i;
      }
    }
    return n;
  }
}
