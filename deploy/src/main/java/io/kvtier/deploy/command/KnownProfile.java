package io.kvtier.deploy.command;

import com.google.protobuf.ByteString;
import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.client.KvtierClient;
import io.kvtier.coordinator.plan.Curves;
import io.kvtier.coordinator.plan.PlanInputs;
import io.kvtier.coordinator.plan.ResidualCurve;
import io.kvtier.deploy.engine.LlamaModel;
import io.kvtier.v1.CurvePoint;
import io.kvtier.v1.HeadProfile;
import io.kvtier.v1.ModelProfile;
import io.kvtier.v1.PlanMode;
import java.util.List;

/**
 * What a running coordinator knows of a model's heads.
 *
 * @param sessions that it has seen
 * @param curves one a (layer, KV head) pair
 */
record KnownProfile(int sessions, List<ResidualCurve> curves) {
  /**
   * Asks a coordinator.
   *
   * @param target host:port
   * @throws KvtierException NOT_FOUND if no session has shown it anything of the model
   */
  static KnownProfile of(String target, LlamaModel model, PlanMode mode, int tokens) {
    try (KvtierClient client = KvtierClient.connect(target)) {
      for (ModelProfile profile :
          client.profiles(ByteString.copyFrom(model.fingerprint()), tokens)) {
        if (profile.getMode() == mode && profile.getHeadsCount() > 0) {
          return new KnownProfile(
              profile.getSessions(),
              profile.getHeadsList().stream().map(head -> curve(head, tokens)).toList());
        }
      }
    }
    throw new KvtierException(
        Code.NOT_FOUND,
        "the coordinator at %s has no profile of this model in this mode; one is made from sessions"
                .formatted(target)
            + " that send their prompt's last 16 queries or more, over 512 tokens or more");
  }

  private static ResidualCurve curve(HeadProfile head, int tokens) {
    int[] k = head.getCurveList().stream().mapToInt(CurvePoint::getK).toArray();
    float[] residual = new float[k.length];
    for (int i = 0; i < k.length; i++) {
      residual[i] = head.getCurve(i).getResidual();
    }
    String name = "layer %d, head %d".formatted(head.getLayer(), head.getKvHead());
    ResidualCurve curve = ResidualCurve.of(name, k, residual, tokens);
    return Curves.withMeasured(name, curve, head);
  }

  PlanInputs applyTo(PlanInputs inputs) {
    return inputs.withProfile(curves, sessions);
  }
}
