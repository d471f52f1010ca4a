package io.kvtier.coordinator.plan;

import com.google.protobuf.ByteString;
import io.kvtier.v1.Dtype;
import io.kvtier.v1.Geometry;
import java.util.Random;

/** Geometries and curves for tests. */
final class PlanSamples {
  private PlanSamples() {}

  static Geometry geometry(int layers, int kvHeads, int headDim) {
    return Geometry.newBuilder()
        .setLayers(layers)
        .setQHeads(2 * kvHeads)
        .setKvHeads(kvHeads)
        .setHeadDim(headDim)
        .setKvDtype(Dtype.DTYPE_BF16)
        .setModelFingerprint(ByteString.copyFrom(new byte[16]))
        .build();
  }

  /** A falling curve of 1..32 points; some are beyond the context. */
  static ResidualCurve curve(Random random, int tokens) {
    int points = 1 + random.nextInt(ResidualCurve.POINTS_MAX);
    int[] k = new int[points];
    float[] residual = new float[points];
    int at = 0;
    float left = 1;
    for (int i = 0; i < points; i++) {
      at += 1 + random.nextInt(1 + tokens / 8);
      left *= random.nextFloat();
      k[i] = at;
      residual[i] = left;
    }
    return ResidualCurve.of("curve", k, residual, tokens);
  }
}
