package io.kvtier.gpuworker.session;

import static io.kvtier.KvtierException.invalid;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.gpuworker.core.HeadPolicy;
import io.kvtier.gpuworker.device.LayerShape;
import io.kvtier.page.Codec;
import io.kvtier.page.Fingerprint;
import io.kvtier.page.PageLayout;
import io.kvtier.rpc.GeometryLimits;
import io.kvtier.rpc.Tensors;
import io.kvtier.v1.Geometry;
import io.kvtier.v1.HeadClass;
import io.kvtier.v1.HeadPlan;
import io.kvtier.v1.Plan;
import io.kvtier.v1.Session;
import java.util.ArrayList;
import java.util.List;
import java.util.UUID;
import java.util.regex.Pattern;

/** Wire types of a session become the worker's own. */
final class Sessions {
  private static final Pattern UUID_FORM =
      Pattern.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}");
  private static final int SINK_TOKENS = 4;
  private static final int WINDOW_TOKENS = 64;

  private Sessions() {}

  static KvtierException unknown(String sessionId) {
    return new KvtierException(
        Code.NOT_FOUND,
        "no session %s on this worker; open one at the coordinator".formatted(sessionId));
  }

  static UUID uuidOf(String sessionId) {
    // The library also reads shorter forms; two spellings of one session would be two names of its
    // pages.
    if (!UUID_FORM.matcher(sessionId).matches()) {
      throw invalid("session_id is '%s'; it must be a UUID in lower case", sessionId);
    }
    return UUID.fromString(sessionId);
  }

  /** Checks what a worker relies on and the geometry does not tell. */
  static void requireBounds(Session session) {
    var _ = uuidOf(session.getSessionId());
    GeometryLimits.check(session.getGeometry());
    KvtierException.requireInRange(
        "tokens_max", Integer.toUnsignedLong(session.getTokensMax()), 1, GeometryLimits.TOKENS_MAX);
    KvtierException.requireInRange(
        "device_bytes_max", session.getDeviceBytesMax(), 0, Long.MAX_VALUE);
  }

  static LayerShape shapeOf(Session session) {
    Geometry geometry = session.getGeometry();
    return new LayerShape(
        Fingerprint.of(geometry.getModelFingerprint()),
        new PageLayout(Codec.ROT4, Codec.ROT4, geometry.getKvHeads(), geometry.getHeadDim()),
        geometry.getQHeads(),
        Tensors.elementBytes(geometry.getKvDtype()),
        SINK_TOKENS,
        WINDOW_TOKENS);
  }

  static List<HeadPolicy> policiesOf(Plan plan, Geometry geometry, int layer) {
    List<HeadPolicy> policies = new ArrayList<>();
    for (int head = 0; head < geometry.getKvHeads(); head++) {
      HeadPlan headPlan = plan.getHeads(layer * geometry.getKvHeads() + head);
      policies.add(
          headPlan.getHeadClass() == HeadClass.HEAD_CLASS_DENSE
              ? HeadPolicy.DENSE
              : new HeadPolicy(
                  false,
                  Math.min(plan.getDominantTokensMin(), headPlan.getDominantTokensMax()),
                  headPlan.getDominantTokensMax(),
                  headPlan.getResidualMass()));
    }
    return policies;
  }
}
