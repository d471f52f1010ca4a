package io.kvtier.gpuworker.session;

import static io.kvtier.page.PageLayout.TOKENS;

import io.kvtier.gpuworker.core.HeadPolicy;
import io.kvtier.gpuworker.core.MassHistogram;
import io.kvtier.gpuworker.core.ResidualCurve;
import io.kvtier.gpuworker.device.LayerPass;
import io.kvtier.gpuworker.device.LayerShape;
import io.kvtier.page.Residence;
import io.kvtier.rpc.PlanLimits;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;

/**
 * Makes each KV head's residual curve from the prompt's last queries. A head whose sketch is not on
 * the device gets it for as long as its own curve takes. One thread.
 */
final class ProfileMaker {
  /** Queries whose choices are compared: a quarter of those that a prompt ends with. */
  private static final int OVERLAP_QUERIES = 8;

  private static final int CHOSEN_MIN = 64;

  private static final float RESIDUAL_MASS = .01f;

  private final LayerShape shape;
  private final PlanSwitch switcher;

  ProfileMaker(LayerShape shape, PlanSwitch switcher) {
    this.shape = shape;
    this.switcher = switcher;
  }

  /** {@code [layers][kvHeads]}; empty if a layer has no queries. */
  ResidualCurve[][] curves(SessionLayer[] layers, int tokens) {
    ResidualCurve[][] curves = new ResidualCurve[layers.length][shape.kvHeads()];
    for (int layer = 0; layer < layers.length; layer++) {
      layers[layer].enter();
      try {
        if (layers[layer].queries.length == 0) {
          return new ResidualCurve[0][];
        }
        for (int head = 0; head < shape.kvHeads(); head++) {
          curves[layer][head] = curve(layers[layer], head, tokens);
        }
      } finally {
        layers[layer].leave();
      }
    }
    return curves;
  }

  private ResidualCurve curve(SessionLayer layer, int head, int tokens) {
    boolean streamed = layer.device.residence(head) == Residence.STREAMED;
    if (streamed) {
      Residence sketched = Residence.TWO_PLANES;
      layer.device.hold(
          head, sketched, switcher.fetch(layer.device, head, sketched.sketch()), List.of());
    }
    try {
      return curveOfSketch(layer, head, tokens);
    } finally {
      if (streamed) {
        layer.device.hold(head, Residence.STREAMED, List.of(), List.of());
      }
    }
  }

  private ResidualCurve curveOfSketch(SessionLayer layer, int head, int tokens) {
    MassHistogram[] masses = new MassHistogram[shape.group()];
    Arrays.setAll(masses, g -> new MassHistogram());
    ResidualCurve curve = new ResidualCurve(tokens);
    int queryLength = shape.qHeads() * shape.headDim();
    int window = layer.queries.length / queryLength;
    for (int i = 0; i < window; i++) {
      layer.device.profile(head, layer.queries, i * queryLength, tokens - window + i, masses);
      for (MassHistogram histogram : masses) {
        curve.add(histogram);
      }
    }
    if (layer.device.placesHeads()) {
      measureOverlap(layer, head, window, curve);
      measureScoreError(layer, head, window, curve);
    }
    return curve;
  }

  private void measureScoreError(SessionLayer layer, int head, int window, ResidualCurve curve) {
    int queryLength = shape.qHeads() * shape.headDim();
    double variance = 0;
    for (int i = 0; i < window; i++) {
      variance += layer.device.scoreVariance(head, layer.queries, i * queryLength) / window;
    }
    if (layer.device.pages() > 0) {
      curve.scoreError((float) Math.min(PlanLimits.SCORE_ERROR_MAX, Math.sqrt(variance)));
    }
  }

  /** Chooses for the last queries as a plan would, of this head alone. */
  private void measureOverlap(SessionLayer layer, int head, int window, ResidualCurve curve) {
    int most = Math.max(1, layer.device.pages() * TOKENS);
    List<HeadPolicy> policies =
        new ArrayList<>(Collections.nCopies(shape.kvHeads(), HeadPolicy.STREAMED));
    policies.set(
        head,
        new HeadPolicy(
            layer.device.residence(head) == Residence.ONE_PLANE
                ? Residence.ONE_PLANE
                : Residence.TWO_PLANES,
            Math.min(CHOSEN_MIN, most),
            most,
            RESIDUAL_MASS * Sessions.residualAim(Residence.TWO_PLANES)));
    LayerPass pass = layer.device.newPass(policies);
    LastChosen last = new LastChosen();
    last.follow(policies);
    int queryLength = shape.qHeads() * shape.headDim();
    for (int i = Math.max(0, window - OVERLAP_QUERIES); i < window; i++) {
      pass.choose(layer.queries, i * queryLength, new float[0], new float[0], 0);
      last.note(pass, shape.kvHeads(), 0);
      pass.release();
    }
    if (last.compared() > 0) {
      curve.overlap(last.share(head));
    }
  }
}
