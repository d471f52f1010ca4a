package io.kvtier.gpuworker.session;

import static io.kvtier.KvtierException.invalid;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.TenantName;
import io.kvtier.gpuworker.core.Ahead;
import io.kvtier.gpuworker.core.HeadPolicy;
import io.kvtier.gpuworker.device.LayerShape;
import io.kvtier.page.Fingerprint;
import io.kvtier.page.Residence;
import io.kvtier.rpc.GeometryLimits;
import io.kvtier.rpc.Tensors;
import io.kvtier.v1.AheadUse;
import io.kvtier.v1.Geometry;
import io.kvtier.v1.HeadClass;
import io.kvtier.v1.HeadPlan;
import io.kvtier.v1.Plan;
import io.kvtier.v1.PlanMode;
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
  private static final int WINDOW_TOKENS_MIN = 16;
  private static final int WINDOW_TOKENS_STEP = 16;
  private static final int EXACT_SHARE = 2;

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

  /** Whose the session is. */
  static String tenantOf(Session session) {
    return session.getTenant().isEmpty()
        ? TenantName.DEFAULT
        : TenantName.require(session.getTenant());
  }

  /** Checks what a worker relies on and the geometry does not tell. */
  static void requireBounds(Session session) {
    var _ = uuidOf(session.getSessionId());
    var _ = tenantOf(session);
    GeometryLimits.check(session.getGeometry());
    KvtierException.requireInRange(
        "tokens_max", Integer.toUnsignedLong(session.getTokensMax()), 1, GeometryLimits.TOKENS_MAX);
    KvtierException.requireInRange(
        "device_bytes_max", session.getDeviceBytesMax(), 0, Long.MAX_VALUE);
  }

  /**
   * The window is shorter where exact rows would take more than half of few device bytes, or leave
   * no room for the codes of a step.
   */
  static LayerShape shapeOf(Session session) {
    LayerShape shape = shapeOf(session.getGeometry(), WINDOW_TOKENS);
    long max = session.getDeviceBytesMax();
    int window = WINDOW_TOKENS;
    while (max != 0 && window > WINDOW_TOKENS_MIN && isTooLarge(session, shape)) {
      window -= WINDOW_TOKENS_STEP;
      shape = shapeOf(session.getGeometry(), window);
    }
    return shape;
  }

  private static boolean isTooLarge(Session session, LayerShape shape) {
    long max = session.getDeviceBytesMax();
    boolean stages = session.getMode() != PlanMode.PLAN_MODE_TAILORKV;
    return session.getGeometry().getLayers() * shape.exactRowBytes() > max / EXACT_SHARE
        || (stages && DeviceBudget.fixedBytes(session, shape, 1) > max);
  }

  private static LayerShape shapeOf(Geometry geometry, int windowTokens) {
    return new LayerShape(
        Fingerprint.of(geometry.getModelFingerprint()),
        GeometryLimits.layout(geometry),
        geometry.getQHeads(),
        Tensors.elementBytes(geometry.getKvDtype()),
        SINK_TOKENS,
        windowTokens);
  }

  static List<HeadPolicy> policiesOf(Plan plan, Geometry geometry, int layer) {
    List<HeadPolicy> policies = new ArrayList<>();
    for (int head = 0; head < geometry.getKvHeads(); head++) {
      HeadPlan headPlan = plan.getHeads(layer * geometry.getKvHeads() + head);
      policies.add(policyOf(plan, headPlan));
    }
    return policies;
  }

  /**
   * The residual is an estimate, right on average and not in each step: aimed at a part of what is
   * asked, it is within it in nearly all steps. One plane's estimates are spread wider.
   */
  static float residualAim(Residence residence) {
    return residence == Residence.ONE_PLANE ? .15f : .3f;
  }

  private static HeadPolicy policyOf(Plan plan, HeadPlan head) {
    if (head.getHeadClass() == HeadClass.HEAD_CLASS_DENSE) {
      HeadPolicy dense =
          head.getBits() == 0 ? HeadPolicy.DENSE : HeadPolicy.DENSE.withBits(head.getBits());
      return dense.withOnePlaneErrs(head.getOnePlaneErrs());
    }
    if (head.getHeadClass() == HeadClass.HEAD_CLASS_STREAMED) {
      return HeadPolicy.STREAMED;
    }
    Residence residence = head.getSketchPlanes() == 1 ? Residence.ONE_PLANE : Residence.TWO_PLANES;
    return new HeadPolicy(
            residence,
            Math.min(plan.getDominantTokensMin(), head.getDominantTokensMax()),
            head.getDominantTokensMax(),
            head.getResidualMass() * residualAim(residence))
        .withAhead(aheadOf(head.getAhead()))
        .withOnePlaneErrs(head.getOnePlaneErrs());
  }

  private static Ahead aheadOf(AheadUse use) {
    return switch (use) {
      case AHEAD_USE_NOTHING -> Ahead.NOTHING;
      case AHEAD_USE_LAST -> Ahead.LAST;
      case AHEAD_USE_UNSPECIFIED, UNRECOGNIZED -> Ahead.MEASURED;
    };
  }
}
