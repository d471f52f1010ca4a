package io.kvtier.coordinator.plan;

import io.kvtier.v1.Geometry;
import io.kvtier.v1.HeadClass;
import io.kvtier.v1.HeadPlan;
import io.kvtier.v1.Plan;
import io.kvtier.v1.PlanMode;
import java.util.Locale;

/**
 * TailorKV's plan as published (arXiv 2505.19586, section 4.1), to compare with: a whole layer is
 * dense where P, the mean mass beyond 5 % of the tokens, is above 0.2, and sparse elsewhere. A
 * sparse layer's number of dominant tokens is what the device bytes leave beside the rows that are
 * always attended and the channel buffers, at least 16.
 */
public final class TailorPlanner {
  private static final double DENSE_ABOVE = .2;
  private static final double SHARE = .05;
  private static final int DENSE_BITS = 1;
  private static final int ALWAYS_TOKENS = 64;
  private static final int CHANNELS = 8;
  private static final int CHANNEL_BUFFERS = 2;
  private static final int DOMINANT_TOKENS_LEAST = 16;

  private TailorPlanner() {}

  /** Makes a plan; without curves every layer is sparse. */
  public static Plan plan(PlanInputs inputs) {
    Geometry geometry = inputs.geometry();
    int chosen = dominantTokens(inputs);
    Plan.Builder plan =
        Plan.newBuilder()
            .setMode(PlanMode.PLAN_MODE_TAILORKV)
            .setDominantTokensMin(chosen)
            .setDeviceBytes(alwaysBytes(inputs) + chosen * rowBytes(geometry))
            .setTokens(inputs.tokens())
            .setProfileSessions(inputs.profileSessions());
    for (int layer = 0; layer < geometry.getLayers(); layer++) {
      double p = sensitivity(inputs, layer);
      for (int head = 0; head < geometry.getKvHeads(); head++) {
        plan.addHeads(head(inputs, layer, head, p, chosen));
      }
    }
    return plan.build();
  }

  private static HeadPlan head(PlanInputs inputs, int layer, int kvHead, double p, int chosen) {
    HeadPlan.Builder head = HeadPlan.newBuilder().setLayer(layer).setKvHead(kvHead);
    if (p > DENSE_ABOVE) {
      return head.setHeadClass(HeadClass.HEAD_CLASS_DENSE)
          .setBits(DENSE_BITS)
          .setReason(String.format(Locale.ROOT, "P of the layer is %.3f > 0.2: dense", p))
          .build();
    }
    // One buffer of chosen rows serves all layers; it and the channels are read for each.
    Geometry geometry = inputs.geometry();
    return head.setHeadClass(HeadClass.HEAD_CLASS_SPARSE)
        .setDominantTokensMax(chosen)
        .setDeviceBytes(headRowBytes(geometry) * chosen / geometry.getLayers())
        .setFetchBytes(
            headRowBytes(geometry) * chosen + (long) CHANNELS * Short.BYTES * inputs.tokens())
        .setReason(String.format(Locale.ROOT, "P of the layer is %.3f <= 0.2: sparse", p))
        .build();
  }

  /** P of a layer: the mean over its heads of E at 5 % of the tokens. */
  private static double sensitivity(PlanInputs inputs, int layer) {
    if (inputs.curves().isEmpty()) {
      return 0;
    }
    int kvHeads = inputs.geometry().getKvHeads();
    double sum = 0;
    for (int head = 0; head < kvHeads; head++) {
      int tokens = (int) Math.ceil(SHARE * inputs.tokens());
      sum += inputs.curves().get(layer * kvHeads + head).residualAt(tokens);
    }
    return sum / kvHeads;
  }

  private static int dominantTokens(PlanInputs inputs) {
    long max = inputs.deviceBytesMax() == 0 ? inputs.fullBytes() / 4 : inputs.deviceBytesMax();
    long left = Math.max(0, max - alwaysBytes(inputs));
    long affordable = left / rowBytes(inputs.geometry());
    long least = Math.min(DOMINANT_TOKENS_LEAST, inputs.tokens());
    return Math.clamp(affordable, (int) least, inputs.tokens());
  }

  /** Keys and values of one token of one layer at 16 bits. */
  private static long rowBytes(Geometry geometry) {
    return geometry.getKvHeads() * headRowBytes(geometry);
  }

  private static long headRowBytes(Geometry geometry) {
    return 2L * geometry.getHeadDim() * Short.BYTES;
  }

  /** First and last rows of every layer, and the two channel buffers that layers share. */
  private static long alwaysBytes(PlanInputs inputs) {
    Geometry geometry = inputs.geometry();
    long always = geometry.getLayers() * rowBytes(geometry) * ALWAYS_TOKENS;
    return always
        + (long) CHANNEL_BUFFERS * CHANNELS * geometry.getKvHeads() * Short.BYTES * inputs.tokens();
  }
}
