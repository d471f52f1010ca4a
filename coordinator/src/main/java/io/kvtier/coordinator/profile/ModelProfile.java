package io.kvtier.coordinator.profile;

import io.kvtier.coordinator.plan.ResidualCurve;
import io.kvtier.v1.ProfileRecord;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/**
 * The curves E(k) of a model's heads, and how alike successive queries' choices are, averaged over
 * sessions. A curve is kept over shares of the context, k / tokens = 2^-16, 2^-15 .. 1/2, and
 * scaled to a session's context by them: on real text from 1k to 16k tokens the mass beyond a
 * sixteenth of the tokens stays within a factor of 1.5 for the heads that need many, while that
 * beyond 64 tokens grows twelvefold. Heads that need few are predicted to need somewhat more than
 * they do when a context is longer than those seen.
 *
 * <p>The average is plain over the first sessions and exponential from then on, so that what a
 * model is used for may change. A share counts from the sessions that measured it: shares of a
 * short context begin at larger values.
 */
final class ModelProfile {
  /** Shares of the context, from 2^-SHARES to 1/2. */
  static final int SHARES = 16;

  /** The newest session counts at least so much. */
  private static final double WEIGHT_MIN = 1.0 / 8;

  private static final int OVERHEAD_BYTES = 512;

  private final float[][] residuals;
  private final int[] samples = new int[SHARES];

  /** Shares of tokens that the query before chose too. */
  private final Measured overlaps;

  /** Errors of scores by one key plane. */
  private final Measured scoreErrors;

  private int sessions;

  /** Something that sessions measure of each head or not: means, and how many measured it. */
  private record Measured(float[] means, int[] samples) {
    static Measured ofHeads(int heads) {
      return new Measured(new float[heads], new int[heads]);
    }

    void load(List<Float> recorded, List<Integer> recordedSamples) {
      for (int head = 0; head < recorded.size(); head++) {
        means[head] = recorded.get(head);
        samples[head] = recordedSamples.get(head);
      }
    }

    void merge(int head, float measured) {
      if (measured != ResidualCurve.UNMEASURED) {
        samples[head]++;
        double weight = Math.max(WEIGHT_MIN, 1.0 / samples[head]);
        means[head] += (float) (weight * (measured - means[head]));
      }
    }
  }

  /** A profile that has seen nothing. */
  ModelProfile(int heads) {
    this.residuals = new float[heads][SHARES];
    this.overlaps = Measured.ofHeads(heads);
    this.scoreErrors = Measured.ofHeads(heads);
  }

  /** One of a snapshot. */
  static ModelProfile of(ProfileRecord record) {
    int heads = record.getResidualsCount() / SHARES;
    ModelProfile profile = new ModelProfile(heads);
    for (int head = 0; head < heads; head++) {
      for (int s = 0; s < SHARES; s++) {
        profile.residuals[head][s] = record.getResiduals(head * SHARES + s);
      }
    }
    for (int s = 0; s < SHARES; s++) {
      profile.samples[s] = record.getSamples(s);
    }
    profile.overlaps.load(record.getOverlapsList(), record.getOverlapSamplesList());
    profile.scoreErrors.load(record.getScoreErrorsList(), record.getScoreErrorSamplesList());
    profile.sessions = record.getSessions();
    return profile;
  }

  /** What a snapshot keeps of it. */
  ProfileRecord.Builder record() {
    ProfileRecord.Builder record = ProfileRecord.newBuilder().setSessions(sessions);
    for (int count : samples) {
      record.addSamples(count);
    }
    for (float[] head : residuals) {
      for (float residual : head) {
        record.addResiduals(residual);
      }
    }
    for (int head = 0; head < residuals.length; head++) {
      record
          .addOverlaps(overlaps.means[head])
          .addOverlapSamples(overlaps.samples[head])
          .addScoreErrors(scoreErrors.means[head])
          .addScoreErrorSamples(scoreErrors.samples[head]);
    }
    return record;
  }

  /** Bytes that a profile of so many heads takes. */
  static long bytes(int heads) {
    return OVERHEAD_BYTES
        + (long) heads * ((SHARES + 2) * Float.BYTES + 2 * Integer.BYTES + Long.BYTES * 4L);
  }

  private static double share(int index) {
    return 1.0 / (1 << (SHARES - index));
  }

  /**
   * Takes a session's curves in.
   *
   * @param tokens context length that they were measured at
   * @param curves one a head
   */
  void merge(int tokens, List<ResidualCurve> curves) {
    sessions++;
    for (int head = 0; head < curves.size(); head++) {
      overlaps.merge(head, curves.get(head).overlap());
      scoreErrors.merge(head, curves.get(head).scoreError());
    }
    int measuredFrom = 1;
    for (ResidualCurve curve : curves) {
      measuredFrom = Math.max(measuredFrom, curve.firstMeasured());
    }
    for (int s = 0; s < SHARES; s++) {
      int k = (int) Math.round(share(s) * tokens);
      if (k < measuredFrom) {
        continue;
      }
      samples[s]++;
      double weight = Math.max(WEIGHT_MIN, 1.0 / samples[s]);
      for (int head = 0; head < residuals.length; head++) {
        double measured = curves.get(head).residualAt(k);
        residuals[head][s] += (float) (weight * (measured - residuals[head][s]));
      }
    }
  }

  /** Sessions that it has seen. */
  int sessions() {
    return sessions;
  }

  /** The curves of a context of so many tokens, one a head; empty if nothing is known of it. */
  List<ResidualCurve> curvesAt(int tokens) {
    int[] k = new int[SHARES];
    int[] shareOf = new int[SHARES];
    int points = 0;
    for (int s = 0; s < SHARES; s++) {
      int at = (int) Math.round(share(s) * tokens);
      if (samples[s] > 0 && at >= 1 && (points == 0 || at > k[points - 1])) {
        k[points] = at;
        shareOf[points++] = s;
      }
    }
    List<ResidualCurve> curves = new ArrayList<>();
    for (int head = 0; head < residuals.length && points > 0; head++) {
      int[] ks = Arrays.copyOf(k, points);
      float[] measured = new float[points];
      for (int i = 0; i < points; i++) {
        measured[i] = Math.clamp(residuals[head][shareOf[i]], 0, 1);
      }
      String name = "profile of head " + head;
      ResidualCurve curve = ResidualCurve.of(name, ks, measured, tokens);
      if (overlaps.samples[head] > 0) {
        curve = curve.withOverlap(name, Math.clamp(overlaps.means[head], 0, 1));
      }
      if (scoreErrors.samples[head] > 0) {
        curve = curve.withScoreError(name, Math.max(0, scoreErrors.means[head]));
      }
      curves.add(curve);
    }
    return curves;
  }
}
