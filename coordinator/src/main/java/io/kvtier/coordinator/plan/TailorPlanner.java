package io.kvtier.coordinator.plan;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.rpc.TailorFootprint;
import io.kvtier.v1.Geometry;
import io.kvtier.v1.HeadClass;
import io.kvtier.v1.HeadPlan;
import io.kvtier.v1.Plan;
import io.kvtier.v1.PlanMode;
import java.util.Locale;

/**
 * TailorKV's plan as published (arXiv 2505.19586, section 4.1), to compare with: a whole layer is
 * dense where P, the mean mass beyond 5 % of the tokens, is above 0.2, and sparse elsewhere. Sparse
 * layers' number of dominant tokens is what the device bytes leave beside the dense layers' codes,
 * the rows that are always attended and the channel buffers, at least 16. It stays what it is as
 * the session grows: where its bytes are bounded, all of them are counted at its most tokens.
 */
public final class TailorPlanner {
  private static final double DENSE_ABOVE = .2;
  private static final double SHARE = .05;
  private static final int DENSE_BITS = 1;

  private final PlanInputs inputs;
  private final int tokensMax;
  private final Geometry geometry;
  private final TailorFootprint footprint;
  private final double[] sensitivities;
  private final int sparseLayers;

  private TailorPlanner(PlanInputs inputs, int tokensMax) {
    this.inputs = inputs;
    this.tokensMax = tokensMax;
    this.geometry = inputs.geometry();
    this.footprint = TailorFootprint.of(geometry);
    this.sensitivities = new double[geometry.getLayers()];
    int sparse = 0;
    for (int layer = 0; layer < sensitivities.length; layer++) {
      sensitivities[layer] = sensitivity(layer);
      sparse += sensitivities[layer] > DENSE_ABOVE ? 0 : 1;
    }
    this.sparseLayers = sparse;
  }

  /**
   * Makes a plan; without curves every layer is sparse.
   *
   * @param tokensMax tokens that the session may grow to, {@code inputs.tokens()} at least
   * @throws KvtierException EXHAUSTED if the session may not hold what the method takes at least
   */
  public static Plan plan(PlanInputs inputs, int tokensMax) {
    return new TailorPlanner(inputs, tokensMax).plan();
  }

  private Plan plan() {
    int chosen = sparseLayers == 0 ? 0 : dominantTokens();
    requireRoom(chosen);
    Plan.Builder plan =
        Plan.newBuilder()
            .setMode(PlanMode.PLAN_MODE_TAILORKV)
            .setDominantTokensMin(Math.max(1, chosen))
            .setDeviceBytes(bytes(inputs.tokens(), chosen))
            .setTokens(inputs.tokens())
            .setProfileSessions(inputs.profileSessions());
    for (int layer = 0; layer < geometry.getLayers(); layer++) {
      for (int head = 0; head < geometry.getKvHeads(); head++) {
        plan.addHeads(head(layer, head, chosen));
      }
    }
    return plan.build();
  }

  private HeadPlan head(int layer, int kvHead, int chosen) {
    HeadPlan.Builder head = HeadPlan.newBuilder().setLayer(layer).setKvHead(kvHead);
    double p = sensitivities[layer];
    if (p > DENSE_ABOVE) {
      return head.setHeadClass(HeadClass.HEAD_CLASS_DENSE)
          .setBits(DENSE_BITS)
          .setDeviceBytes(footprint.denseBytes(DENSE_BITS, inputs.tokens()) / geometry.getKvHeads())
          .setReason(String.format(Locale.ROOT, "P of the layer is %.3f > 0.2: dense", p))
          .build();
    }
    // One buffer of chosen rows serves all layers; it and the channels are read for each.
    long chosenBytes = footprint.chosenBytes(chosen) / geometry.getKvHeads();
    long channelBytes = (long) TailorFootprint.CHANNELS * Short.BYTES * inputs.tokens();
    return head.setHeadClass(HeadClass.HEAD_CLASS_SPARSE)
        .setDominantTokensMax(chosen)
        .setDeviceBytes(chosenBytes / sparseLayers)
        .setFetchBytes(chosenBytes + channelBytes)
        .setReason(String.format(Locale.ROOT, "P of the layer is %.3f <= 0.2: sparse", p))
        .build();
  }

  /** P of a layer: the mean over its heads of E at 5 % of the tokens. */
  private double sensitivity(int layer) {
    if (inputs.curves().isEmpty()) {
      return 0;
    }
    int kvHeads = geometry.getKvHeads();
    double sum = 0;
    for (int head = 0; head < kvHeads; head++) {
      int tokens = (int) Math.ceil(SHARE * inputs.tokens());
      sum += inputs.curves().get(layer * kvHeads + head).residualAt(tokens);
    }
    return sum / kvHeads;
  }

  private int dominantTokens() {
    long max = isBounded() ? inputs.deviceBytesMax() : inputs.fullBytes() / 4;
    long left = Math.max(0, max - bytes(isBounded() ? tokensMax : inputs.tokens(), 0));
    int least = Math.min(TailorFootprint.CHOSEN_TOKENS_MIN, inputs.tokens());
    return Math.clamp(left / footprint.rowBytes(), least, inputs.tokens());
  }

  private void requireRoom(int chosen) {
    long need = bytes(tokensMax, chosen);
    if (isBounded() && need > inputs.deviceBytesMax()) {
      throw new KvtierException(
          Code.EXHAUSTED,
          ("device_bytes_max is %d and TailorKV's method takes %d at tokens_max %d with %d dominant"
                  + " tokens and %d of %d layers dense; open the session with at least as many, or"
                  + " with fewer tokens")
              .formatted(
                  inputs.deviceBytesMax(),
                  need,
                  tokensMax,
                  chosen,
                  geometry.getLayers() - sparseLayers,
                  geometry.getLayers()));
    }
  }

  private boolean isBounded() {
    return inputs.deviceBytesMax() != 0;
  }

  private long bytes(int tokens, int chosen) {
    long dense = (geometry.getLayers() - sparseLayers) * footprint.denseBytes(DENSE_BITS, tokens);
    long buffers =
        sparseLayers == 0 ? 0 : footprint.channelBytes(tokens) + footprint.chosenBytes(chosen);
    return dense + sparseLayers * footprint.sparseBytes(tokens, 0) + buffers;
  }
}
