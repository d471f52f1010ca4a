package io.kvtier.deploy.plan;

import io.kvtier.v1.HeadClass;
import io.kvtier.v1.HeadPlan;
import io.kvtier.v1.Plan;
import io.kvtier.v1.PlanMode;
import java.util.List;
import java.util.Locale;

/**
 * One head of a plan, as people and scripts read it.
 *
 * @param bits of the codes that are attended to
 * @param sketchPlanes resident key planes of a head that chooses
 * @param dominantTokens most tokens chosen a step; 0: all are attended to
 * @param ahead what is fetched ahead of a query without a hint: "last", what the last query chose;
 *     "nothing"; "measured", as the worker measures; empty: there is nothing to choose
 * @param fetchMs predicted time of a step's fetch, before anything hides it
 */
public record PlanRow(
    int layer,
    int kvHead,
    String headClass,
    int bits,
    int sketchPlanes,
    int dominantTokens,
    String ahead,
    long deviceBytes,
    long fetchBytes,
    double fetchMs,
    String why) {
  /** TailorKV's method attends to chosen tokens as they came. */
  private static final int TAILORKV_BITS = 16;

  /**
   * A plan's rows.
   *
   * @param codeBits of the geometry, 4 or 8
   * @param bandwidth in bytes a second
   */
  public static List<PlanRow> of(Plan plan, int codeBits, double bandwidth) {
    int bits = plan.getMode() == PlanMode.PLAN_MODE_TAILORKV ? TAILORKV_BITS : codeBits;
    return plan.getHeadsList().stream().map(head -> of(head, bits, bandwidth)).toList();
  }

  private static PlanRow of(HeadPlan head, int bits, double bandwidth) {
    return new PlanRow(
        head.getLayer(),
        head.getKvHead(),
        name(head.getHeadClass()),
        head.getBits() == 0 ? bits : head.getBits(),
        head.getSketchPlanes(),
        head.getDominantTokensMax(),
        ahead(head),
        head.getDeviceBytes(),
        head.getFetchBytes(),
        head.getFetchBytes() / bandwidth * 1e3,
        head.getReason());
  }

  private static String ahead(HeadPlan head) {
    if (head.getHeadClass() != HeadClass.HEAD_CLASS_SPARSE) {
      return "";
    }
    return switch (head.getAhead()) {
      case AHEAD_USE_LAST -> "last";
      case AHEAD_USE_NOTHING -> "nothing";
      default -> "measured";
    };
  }

  private static String name(HeadClass headClass) {
    return headClass.name().replace("HEAD_CLASS_", "").toLowerCase(Locale.ROOT);
  }
}
