package io.kvtier.coordinator.plan;

import static io.kvtier.KvtierException.requireInRange;

import io.kvtier.KvtierException;
import io.kvtier.page.PageLayout;
import io.kvtier.page.Residence;
import io.kvtier.rpc.GeometryLimits;
import io.kvtier.v1.Geometry;
import java.util.List;

/**
 * What a plan is made from.
 *
 * @param geometry checked already
 * @param tokens tokens of the context, 1..1048576
 * @param deviceBytesMax device bytes the session may hold; 0: a quarter of its full KV at 16 bits,
 *     or what all sketches take where that is more
 * @param fixedDeviceBytes what exact rows and staged codes take in any plan, 0..2^50
 * @param pages whole pages that each layer has outside its window, 0..tokens / 64
 * @param curves one a (layer, KV head) pair, by layer, then KV head; empty: no profile
 * @param profileSessions sessions of the model that the curves are of; 0: the session's own
 * @param deviceBytesThere device bytes that the worker has for the session; 0: it does not tell
 * @param rates of the worker
 */
public record PlanInputs(
    Geometry geometry,
    int tokens,
    long deviceBytesMax,
    long fixedDeviceBytes,
    int pages,
    List<ResidualCurve> curves,
    int profileSessions,
    long deviceBytesThere,
    PlanRates rates) {
  /** Keeps every sum of bytes far from overflow. */
  private static final long FIXED_BYTES_MAX = 1L << 50;

  /** Keys and values, 2 bytes each, of one dimension of one token of one head. */
  private static final int FULL_BYTES_PER_DIM = 4;

  private static final int DEFAULT_SHARE = 4;

  public PlanInputs {
    curves = List.copyOf(curves);
    requireInRange("tokens", tokens, 1, GeometryLimits.TOKENS_MAX);
    requireInRange("device_bytes_max", deviceBytesMax, 0, Long.MAX_VALUE);
    requireInRange("device_bytes_there", deviceBytesThere, 0, Long.MAX_VALUE);
    requireInRange("fixed_device_bytes", fixedDeviceBytes, 0, FIXED_BYTES_MAX);
    requireInRange("pages", pages, 0, tokens / PageLayout.TOKENS);
    if (!curves.isEmpty() && curves.size() != GeometryLimits.heads(geometry)) {
      throw KvtierException.invalid(
          "%d heads have a profile; it must be none or layers x kv_heads = %d x %d = %d",
          curves.size(),
          geometry.getLayers(),
          geometry.getKvHeads(),
          GeometryLimits.heads(geometry));
    }
  }

  /** Inputs with curves of the session's own, or none. */
  public PlanInputs(
      Geometry geometry,
      int tokens,
      long deviceBytesMax,
      long fixedDeviceBytes,
      int pages,
      List<ResidualCurve> curves) {
    this(
        geometry, tokens, deviceBytesMax, fixedDeviceBytes, pages, curves, 0, 0, PlanRates.DEFAULT);
  }

  /** The same with curves that other sessions of the model have shown. */
  public PlanInputs withProfile(List<ResidualCurve> known, int sessions) {
    return new PlanInputs(
        geometry,
        tokens,
        deviceBytesMax,
        fixedDeviceBytes,
        pages,
        known,
        sessions,
        deviceBytesThere,
        rates);
  }

  /** The same for a worker that has so many device bytes for the session; 0: it does not tell. */
  public PlanInputs withDeviceBytesThere(long bytes) {
    return new PlanInputs(
        geometry,
        tokens,
        deviceBytesMax,
        fixedDeviceBytes,
        pages,
        curves,
        profileSessions,
        bytes,
        rates);
  }

  /** The same for a worker of these rates. */
  public PlanInputs withRates(PlanRates measured) {
    return new PlanInputs(
        geometry,
        tokens,
        deviceBytesMax,
        fixedDeviceBytes,
        pages,
        curves,
        profileSessions,
        deviceBytesThere,
        measured);
  }

  /** Where the curves come from, as a plan tells it before what follows from them. */
  String source() {
    return switch (profileSessions) {
      case 0 -> "";
      case 1 -> "profile of 1 session, ";
      default -> "profile of " + profileSessions + " sessions, ";
    };
  }

  PageLayout layout() {
    return GeometryLimits.layout(geometry);
  }

  /** Device bytes of one head. */
  long headBytes(Residence residence) {
    return (long) pages * residence.deviceBytes(layout());
  }

  /** What the full KV of the context takes at 16 bits; at most 2^46. */
  long fullBytes() {
    return (long) tokens
        * GeometryLimits.heads(geometry)
        * geometry.getHeadDim()
        * FULL_BYTES_PER_DIM;
  }

  /**
   * Device bytes that the plan may spend: those of the session, or what the worker has for it where
   * that is less.
   *
   * @throws KvtierException EXHAUSTED if the session may not hold what any plan takes
   */
  long budgetBytes() {
    long ofSession = sessionBytes();
    return deviceBytesThere == 0
        ? ofSession
        : Math.min(ofSession, Math.max(deviceBytesThere, fixedDeviceBytes));
  }

  private long sessionBytes() {
    if (deviceBytesMax == 0) {
      long sketches = GeometryLimits.heads(geometry) * headBytes(Residence.TWO_PLANES);
      return Math.max(fullBytes() / DEFAULT_SHARE, fixedDeviceBytes + sketches);
    }
    if (deviceBytesMax < fixedDeviceBytes) {
      throw new KvtierException(
          KvtierException.Code.EXHAUSTED,
          ("device_bytes_max is %d and the exact rows and staged codes of %d tokens take %d in any"
               + " plan; open the session with at least as many, or with 0 for the default share")
              .formatted(deviceBytesMax, tokens, fixedDeviceBytes));
    }
    return deviceBytesMax;
  }
}
