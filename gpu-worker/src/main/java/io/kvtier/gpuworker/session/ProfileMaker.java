package io.kvtier.gpuworker.session;

import io.kvtier.gpuworker.core.MassHistogram;
import io.kvtier.gpuworker.core.ResidualCurve;
import io.kvtier.gpuworker.device.LayerShape;
import java.util.Arrays;

/** Makes each KV head's residual curve from the prompt's last queries. One thread. */
final class ProfileMaker {
  private final LayerShape shape;

  ProfileMaker(LayerShape shape) {
    this.shape = shape;
  }

  /** {@code [layers][kvHeads]}; empty if a layer has no queries. */
  ResidualCurve[][] curves(SessionLayer[] layers, int tokens) {
    ResidualCurve[][] curves = new ResidualCurve[layers.length][];
    MassHistogram[] masses = new MassHistogram[shape.qHeads()];
    Arrays.setAll(masses, q -> new MassHistogram());
    for (int layer = 0; layer < layers.length; layer++) {
      layers[layer].lock.lock();
      try {
        if (layers[layer].queries.length == 0) {
          return new ResidualCurve[0][];
        }
        curves[layer] = curvesOf(layers[layer], tokens, masses);
      } finally {
        layers[layer].lock.unlock();
      }
    }
    return curves;
  }

  private ResidualCurve[] curvesOf(SessionLayer layer, int tokens, MassHistogram[] masses) {
    ResidualCurve[] curves = new ResidualCurve[shape.kvHeads()];
    Arrays.setAll(curves, head -> new ResidualCurve(tokens));
    int queryLength = shape.qHeads() * shape.headDim();
    int window = layer.queries.length / queryLength;
    for (int i = 0; i < window; i++) {
      layer.device.profile(layer.queries, i * queryLength, tokens - window + i, masses);
      for (int q = 0; q < shape.qHeads(); q++) {
        curves[q / shape.group()].add(masses[q]);
      }
    }
    return curves;
  }
}
