package io.kvtier.rpc;

import static io.kvtier.KvtierException.requireInRange;

import com.google.errorprone.annotations.CanIgnoreReturnValue;
import io.kvtier.KvtierException;
import io.kvtier.v1.AheadUse;
import io.kvtier.v1.Geometry;
import io.kvtier.v1.HeadClass;
import io.kvtier.v1.HeadPlan;
import io.kvtier.v1.NearUse;
import io.kvtier.v1.Plan;
import io.kvtier.v1.PlanMode;

/** What a plan made by hand may be (types.proto). */
public final class PlanLimits {
  /**
   * Where so much of what a query chooses was chosen by the query before, that is worth fetching
   * ahead: what is moved for nothing is less than half of what a step needs.
   */
  public static final float OVERLAP_AHEAD_MIN = .7f;

  /** Largest standard deviation of a score's error that is told. */
  public static final int SCORE_ERROR_MAX = 1000;

  /** Most bytes a microsecond, of what is fetched or attended to. */
  public static final int RATE_MAX = 1_000_000;

  private static final int REASON_LENGTH_MAX = 1024;
  private static final int PLANES_MAX = 2;
  private static final int TAILORKV_BITS_MAX = 2;

  private PlanLimits() {}

  /**
   * Checks that a plan has exactly one entry a (layer, KV head) pair, in order, that every value
   * lies in its bounds, and that the session's method honours it.
   *
   * @param geometry checked already
   * @param mode the session's; unspecified: kvtier's own
   * @throws KvtierException INVALID with layer, KV head, name, value and bound
   */
  public static void check(Plan plan, Geometry geometry, PlanMode mode) {
    boolean tailorKv = mode == PlanMode.PLAN_MODE_TAILORKV;
    requireMode(plan, tailorKv);
    int heads = GeometryLimits.heads(geometry);
    if (plan.getHeadsCount() != heads) {
      throw KvtierException.invalid(
          "plan has %d heads; it must have layers x kv_heads = %d x %d = %d",
          plan.getHeadsCount(), geometry.getLayers(), geometry.getKvHeads(), heads);
    }
    requireTokens("plan.dominant_tokens_min", plan.getDominantTokensMin());
    requireBytes("plan.hot_set_bytes", plan.getHotSetBytes());
    requireBytes("plan.device_bytes", plan.getDeviceBytes());
    requireInRange(
        "plan.tokens", Integer.toUnsignedLong(plan.getTokens()), 0, GeometryLimits.TOKENS_MAX);
    requireRate("plan.fetch_rate", plan.getFetchRate());
    requireRate("plan.attend_rate", plan.getAttendRate());
    if (plan.getNear() == NearUse.UNRECOGNIZED) {
      throw KvtierException.invalid(
          "plan.near is %d; it must be 0 (by measured cost), NEAR_USE_NEVER (1) or NEAR_USE_ALWAYS"
              + " (2)",
          plan.getNearValue());
    }
    if (tailorKv && (plan.getHotSetBytes() != 0 || plan.getNearValue() != 0)) {
      throw KvtierException.invalid(
          "plan.hot_set_bytes is %d and plan.near is %d; both must be 0 in TailorKV mode, which"
              + " keeps all rows itself",
          plan.getHotSetBytes(), plan.getNearValue());
    }
    for (int i = 0; i < heads; i++) {
      HeadPlan head = plan.getHeads(i);
      String index = "plan.heads[" + i + "]";
      requirePlace(index, head.getLayer(), head.getKvHead(), i, geometry);
      String name = "layer %d, KV head %d: %s".formatted(head.getLayer(), head.getKvHead(), index);
      check(name, head);
      if (tailorKv) {
        requireTailorKv(name, head, plan.getHeads(i - head.getKvHead()));
      } else if (head.getBits() != 0) {
        throw KvtierException.invalid(
            "%s.bits is %s; it must be 0 in kvtier mode, where the page's own codes, of 4 bits, are"
                + " attended to",
            name, Integer.toUnsignedString(head.getBits()));
      }
    }
  }

  private static void requireMode(Plan plan, boolean tailorKv) {
    PlanMode wanted = tailorKv ? PlanMode.PLAN_MODE_TAILORKV : PlanMode.PLAN_MODE_KVTIER;
    if (plan.getMode() != PlanMode.PLAN_MODE_UNSPECIFIED && plan.getMode() != wanted) {
      throw KvtierException.invalid(
          "plan.mode is %d and the session's is %s (%d); leave it out, or open the session in the"
              + " plan's mode",
          plan.getModeValue(), wanted, wanted.getNumber());
    }
  }

  /** TailorKV places whole layers, and estimates nothing. */
  private static void requireTailorKv(String name, HeadPlan head, HeadPlan first) {
    boolean dense = head.getHeadClass() == HeadClass.HEAD_CLASS_DENSE;
    if (head.getHeadClass() == HeadClass.HEAD_CLASS_STREAMED) {
      throw KvtierException.invalid(
          "%s.head_class is HEAD_CLASS_STREAMED (3); it must be HEAD_CLASS_DENSE (1) or"
              + " HEAD_CLASS_SPARSE (2) in TailorKV mode",
          name);
    }
    requireInRange(
        name + ".bits of a " + (dense ? "dense" : "sparse") + " layer in TailorKV mode",
        Integer.toUnsignedLong(head.getBits()),
        dense ? 1 : 0,
        dense ? TAILORKV_BITS_MAX : 0);
    if (head.getResidualMass() != 0 || head.getSketchPlanes() != 0 || head.getAheadValue() != 0) {
      throw KvtierException.invalid(
          "%s has residual_mass %s, sketch_planes %d and ahead %d; all must be 0 in TailorKV mode,"
              + " which estimates nothing",
          name, head.getResidualMass(), head.getSketchPlanes(), head.getAheadValue());
    }
    if (head.getHeadClass() != first.getHeadClass()
        || head.getBits() != first.getBits()
        || head.getDominantTokensMax() != first.getDominantTokensMax()) {
      throw KvtierException.invalid(
          "%s has head_class %d, bits %d and dominant_tokens_max %d, and the layer's first head %d,"
              + " %d and %d; they must be the same in TailorKV mode, which places whole layers",
          name,
          head.getHeadClassValue(),
          head.getBits(),
          head.getDominantTokensMax(),
          first.getHeadClassValue(),
          first.getBits(),
          first.getDominantTokensMax());
    }
  }

  /**
   * Checks that entry {@code index} of a list by layer, then KV head, is of the right pair.
   *
   * @throws KvtierException INVALID with name, value and bound
   */
  public static void requirePlace(
      String name, int layer, int kvHead, int index, Geometry geometry) {
    int layerThere = index / geometry.getKvHeads();
    int kvHeadThere = index % geometry.getKvHeads();
    if (layer != layerThere || kvHead != kvHeadThere) {
      throw KvtierException.invalid(
          "%s is of layer %s, KV head %s; it must be of layer %d, KV head %d: entries go by layer,"
              + " then KV head",
          name,
          Integer.toUnsignedString(layer),
          Integer.toUnsignedString(kvHead),
          layerThere,
          kvHeadThere);
    }
  }

  private static void check(String name, HeadPlan head) {
    requireFraction(name + ".residual_mass", head.getResidualMass());
    requireFraction(name + ".predicted_residual", head.getPredictedResidual());
    requireFraction(name + ".overlap", head.getOverlap());
    if (head.getAhead() == AheadUse.UNRECOGNIZED) {
      throw KvtierException.invalid(
          "%s.ahead is %d; it must be 0 (by measured overlap), AHEAD_USE_NOTHING (1) or"
              + " AHEAD_USE_LAST (2)",
          name, head.getAheadValue());
    }
    requireInRange(
        "length of " + name + ".reason", head.getReason().length(), 0, REASON_LENGTH_MAX);
    if (head.getHeadClass() == HeadClass.HEAD_CLASS_SPARSE) {
      requireTokens(name + ".dominant_tokens_max", head.getDominantTokensMax());
      requireInRange(
          name + ".sketch_planes", Integer.toUnsignedLong(head.getSketchPlanes()), 0, PLANES_MAX);
    } else if (head.getHeadClass() == HeadClass.HEAD_CLASS_DENSE) {
      requireNoChoice(name, "dense", head);
    } else if (head.getHeadClass() == HeadClass.HEAD_CLASS_STREAMED) {
      requireNoChoice(name, "streamed", head);
    } else {
      throw KvtierException.invalid(
          "%s.head_class is %d; it must be HEAD_CLASS_DENSE (1), HEAD_CLASS_SPARSE (2) or"
              + " HEAD_CLASS_STREAMED (3)",
          name, head.getHeadClassValue());
    }
    requireBytes(name + ".device_bytes", head.getDeviceBytes());
    requireBytes(name + ".fetch_bytes", head.getFetchBytes());
  }

  private static void requireNoChoice(String name, String headClass, HeadPlan head) {
    if (head.getDominantTokensMax() != 0
        || head.getResidualMass() != 0
        || head.getSketchPlanes() != 0
        || head.getAheadValue() != 0) {
      throw KvtierException.invalid(
          "%s is %s with dominant_tokens_max %s, residual_mass %s, sketch_planes %s and ahead %d;"
              + " all must be 0",
          name,
          headClass,
          Integer.toUnsignedString(head.getDominantTokensMax()),
          head.getResidualMass(),
          Integer.toUnsignedString(head.getSketchPlanes()),
          head.getAheadValue());
    }
  }

  private static void requireTokens(String name, int tokens) {
    requireInRange(name, Integer.toUnsignedLong(tokens), 1, GeometryLimits.TOKENS_MAX);
  }

  /**
   * Checks a rate as messages have it.
   *
   * @throws KvtierException INVALID with name, value and bound
   */
  @CanIgnoreReturnValue
  public static int requireRate(String name, int rate) {
    return (int) requireInRange(name, Integer.toUnsignedLong(rate), 0, RATE_MAX);
  }

  private static void requireBytes(String name, long bytes) {
    if (bytes < 0) {
      throw KvtierException.invalid(
          "%s is %s; it must be 0..%d", name, Long.toUnsignedString(bytes), Long.MAX_VALUE);
    }
  }

  private static void requireFraction(String name, float value) {
    // Written so that NaN is refused too.
    if (!(value >= 0 && value <= 1)) {
      throw KvtierException.invalid("%s is %s; it must be 0..1", name, value);
    }
  }
}
