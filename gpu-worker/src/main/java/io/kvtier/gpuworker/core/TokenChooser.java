package io.kvtier.gpuworker.core;

/**
 * Chooses the dominant tokens of one KV head for one step: the fewest whose estimated residual mass
 * is within what the policy leaves to the estimate, within its bounds. A fixed number is unsafe:
 * the number needed for the same residual varies a thousandfold between steps of one head. Two
 * passes over the candidates, no sort; ties at the threshold go to the earlier position, so the
 * choice is deterministic. It asks for few of the tokens to begin with, those that come near what
 * its last choice took, and for more where they are not enough: that changes its work and never its
 * choice. One thread.
 */
public final class TokenChooser {
  /**
   * A head whose exact tokens hold nearly all of its attention needs no others: where less than
   * this part of the allowed residual lies elsewhere, even an estimate that is ten times too low
   * leaves it within the allowance.
   */
  private static final float NEGLIGIBLE = .1f;

  /** The choice needs tokens of smaller mass than were offered. */
  public static final int MORE = -1;

  /**
   * Tokens are asked for down to so many buckets below the smallest mass that was chosen last: half
   * an octave, where choices fell lately twice of that fall, to two octaves.
   */
  private static final int MARGIN_MIN = (1 << MassHistogram.SUB_BITS) / 2;

  private static final int MARGIN_MAX = 2 << MassHistogram.SUB_BITS;

  /** A fall is forgotten by so many buckets a choice. */
  private static final int FORGOTTEN = 2;

  private final MassHistogram histogram = new MassHistogram();

  /** Of the last choice: the bucket of the smallest mass chosen. */
  private int lastBucket;

  /** Buckets below that one. */
  private int margin = MARGIN_MAX;

  /**
   * The mass below which tokens need not be offered at first.
   *
   * @param tokens of which the choice is made
   */
  public float floor(HeadPolicy policy, int tokens) {
    int guess = Math.max(0, lastBucket - margin);
    return MassHistogram.lowest(Math.max(guess, spared(policy, tokens)));
  }

  /**
   * The mass below which tokens need not be offered, where those down to {@code floor} were not
   * enough.
   */
  public float lowerFloor(HeadPolicy policy, int tokens, float floor) {
    float spared = MassHistogram.lowest(spared(policy, tokens));
    return spared < floor ? spared : 0;
  }

  /**
   * The bucket below which all tokens together are within what may be left: only fewer than the
   * policy's least can need any of them.
   */
  private static int spared(HeadPolicy policy, int tokens) {
    return MassHistogram.bucketOf(policy.residualMass() / Math.max(1, tokens));
  }

  /**
   * Chooses by mass.
   *
   * @param candidates at least the policy's most of largest mass, of all tokens; a mass is the
   *     estimated share of the attention, pooled over the group
   * @param total mass of all tokens, candidates or not
   * @param floor tokens of smaller mass were not offered, as {@link #floor} and {@link #lowerFloor}
   *     allow
   * @param chosen receives the candidates' indices chosen, rising; at least {@code min(candidates,
   *     policy.tokensMax())} long
   * @return how many were chosen: 0 if what lies on all tokens is negligible, else at least the
   *     policy's least; {@link #MORE}: tokens below the floor are needed too
   */
  public int choose(
      HeadPolicy policy, Candidates candidates, double total, float floor, int[] chosen) {
    if (total <= policy.residualMass() * NEGLIGIBLE) {
      return 0;
    }
    histogram.clear();
    for (int i = 0; i < candidates.count; i++) {
      histogram.add(candidates.masses[i]);
    }
    int bucket = MassHistogram.BUCKETS;
    int offered = floor > 0 ? MassHistogram.bucketOf(floor) : 0;
    int count = 0;
    double residual = total;
    while (bucket > 0
        && (count < policy.tokensMin() || residual > policy.residualMass())
        && count < policy.tokensMax()) {
      if (bucket == offered) {
        return MORE;
      }
      bucket--;
      count += histogram.count(bucket);
      residual -= histogram.mass(bucket);
    }
    margin =
        Math.clamp(Math.max(2 * (lastBucket - bucket), margin - FORGOTTEN), MARGIN_MIN, MARGIN_MAX);
    lastBucket = bucket;
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
