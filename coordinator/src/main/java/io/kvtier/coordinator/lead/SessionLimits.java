package io.kvtier.coordinator.lead;

import static io.kvtier.KvtierException.requireInRange;

import io.kvtier.KvtierException;
import io.kvtier.rpc.GeometryLimits;
import io.kvtier.rpc.PlanLimits;
import io.kvtier.v1.Geometry;
import io.kvtier.v1.OpenRequest;
import io.kvtier.v1.PlanMode;
import io.kvtier.v1.Session;
import java.time.Duration;
import java.util.regex.Pattern;

/** What the calls about sessions may say (sessions.proto). */
public final class SessionLimits {
  private static final int OWNER_LENGTH_MAX = 64;
  private static final Pattern OWNER = Pattern.compile("[ -~]*");
  private static final Pattern REQUEST_ID = Pattern.compile("[A-Za-z0-9._-]{0,64}");
  private static final int IDLE_TIMEOUT_DEFAULT_MS = (int) Duration.ofHours(1).toMillis();
  private static final int IDLE_TIMEOUT_MIN_MS = 100;
  private static final int IDLE_TIMEOUT_MAX_MS = (int) Duration.ofDays(7).toMillis();

  private SessionLimits() {}

  public static void check(OpenRequest request) {
    requireGeometry(request.hasGeometry(), request.getGeometry());
    requireInRange(
        "tokens_max", Integer.toUnsignedLong(request.getTokensMax()), 1, GeometryLimits.TOKENS_MAX);
    requireInRange("length of token_ids", request.getTokenIdsCount(), 0, request.getTokensMax());
    if (request.getDeviceBytesMax() < 0) {
      throw KvtierException.invalid(
          "device_bytes_max is %s; it must be 0..%d",
          Long.toUnsignedString(request.getDeviceBytesMax()), Long.MAX_VALUE);
    }
    if (request.getMode() == PlanMode.UNRECOGNIZED) {
      throw KvtierException.invalid(
          "mode is %d; it must be PLAN_MODE_KVTIER (1), PLAN_MODE_TAILORKV (2) or 0",
          request.getModeValue());
    }
    if (request.hasPlan()) {
      PlanLimits.check(request.getPlan(), request.getGeometry(), request.getMode());
    }
    checkOwner(request.getOwner());
    checkRequestId(request.getRequestId());
    if (request.getIdleTimeoutMs() != 0) {
      requireInRange(
          "idle_timeout_ms",
          Integer.toUnsignedLong(request.getIdleTimeoutMs()),
          IDLE_TIMEOUT_MIN_MS,
          IDLE_TIMEOUT_MAX_MS);
    }
  }

  public static void requireGeometry(boolean present, Geometry geometry) {
    if (!present) {
      throw KvtierException.invalid("geometry is absent; it is required");
    }
    GeometryLimits.check(geometry);
  }

  static int idleTimeoutMs(OpenRequest request) {
    return request.getIdleTimeoutMs() == 0 ? IDLE_TIMEOUT_DEFAULT_MS : request.getIdleTimeoutMs();
  }

  public static void checkOwner(String owner) {
    requireInRange("length of owner", owner.length(), 0, OWNER_LENGTH_MAX);
    if (!OWNER.matcher(owner).matches()) {
      throw KvtierException.invalid("owner is '%s'; it must be of printable ASCII", owner);
    }
  }

  public static void checkRequestId(String requestId) {
    if (!REQUEST_ID.matcher(requestId).matches()) {
      throw KvtierException.invalid(
          "request_id has %d characters; it must have 0..64 of [A-Za-z0-9._-]", requestId.length());
    }
  }

  /**
   * Makes sure that a caller says who the session belongs to.
   *
   * @throws KvtierException PRECONDITION
   */
  public static void requireOwner(Session session, String owner) {
    if (!session.getOwner().equals(owner)) {
      throw KvtierException.precondition(
          "owner is '%s' and session %s has another one; nothing was changed",
          owner, session.getSessionId());
    }
  }
}
