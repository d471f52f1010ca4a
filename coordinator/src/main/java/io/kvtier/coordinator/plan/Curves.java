package io.kvtier.coordinator.plan;

import io.kvtier.KvtierException;
import io.kvtier.rpc.GeometryLimits;
import io.kvtier.rpc.PlanLimits;
import io.kvtier.v1.CurvePoint;
import io.kvtier.v1.Geometry;
import io.kvtier.v1.HeadProfile;
import java.util.ArrayList;
import java.util.List;

/** The curves of a session's heads, as they come over the wire. */
public final class Curves {
  private Curves() {}

  /**
   * Takes the heads' curves.
   *
   * @param profiles one a (layer, KV head) pair, in order, or none
   * @param tokens tokens of the context
   * @throws KvtierException INVALID with name, value and bound
   */
  public static List<ResidualCurve> of(List<HeadProfile> profiles, Geometry geometry, int tokens) {
    int heads = GeometryLimits.heads(geometry);
    if (!profiles.isEmpty() && profiles.size() != heads) {
      throw KvtierException.invalid(
          "heads has %d entries; it must have none, or layers x kv_heads = %d x %d = %d",
          profiles.size(), geometry.getLayers(), geometry.getKvHeads(), heads);
    }
    List<ResidualCurve> curves = new ArrayList<>(profiles.size());
    for (int i = 0; i < profiles.size(); i++) {
      HeadProfile profile = profiles.get(i);
      String name = "heads[" + i + "]";
      PlanLimits.requirePlace(name, profile.getLayer(), profile.getKvHead(), i, geometry);
      ResidualCurve curve = curve(name + ".curve", profile.getCurveList(), tokens);
      curves.add(withMeasured(name, curve, profile));
    }
    return curves;
  }

  /**
   * A curve with what else was measured of its head.
   *
   * @throws KvtierException INVALID with name, value and bound
   */
  public static ResidualCurve withMeasured(String name, ResidualCurve curve, HeadProfile profile) {
    ResidualCurve more =
        profile.hasOverlap() ? curve.withOverlap(name, profile.getOverlap()) : curve;
    return profile.hasScoreError() ? more.withScoreError(name, profile.getScoreError()) : more;
  }

  private static ResidualCurve curve(String name, List<CurvePoint> points, int tokens) {
    int[] k = points.stream().mapToInt(CurvePoint::getK).toArray();
    float[] residual = new float[k.length];
    for (int i = 0; i < k.length; i++) {
      residual[i] = points.get(i).getResidual();
    }
    return ResidualCurve.of(name, k, residual, tokens);
  }
}
