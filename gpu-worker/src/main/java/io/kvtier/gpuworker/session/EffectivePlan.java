package io.kvtier.gpuworker.session;

import io.kvtier.gpuworker.core.HeadPolicy;
import io.kvtier.page.PageLayout;
import io.kvtier.page.Residence;
import io.kvtier.v1.AheadUse;
import io.kvtier.v1.HeadClass;
import io.kvtier.v1.HeadPlan;
import io.kvtier.v1.Plan;
import java.util.List;

/** What a plan has become where device bytes were too few for it. */
final class EffectivePlan {
  private EffectivePlan() {}

  /** Heads that hold less than they were to. */
  static int demoted(List<HeadPolicy> planned, List<HeadPolicy> held) {
    int count = 0;
    for (int head = 0; head < planned.size(); head++) {
      count += isLess(held.get(head), planned.get(head)) ? 1 : 0;
    }
    return count;
  }

  private static boolean isLess(HeadPolicy held, HeadPolicy planned) {
    return held.residence().compareTo(planned.residence()) > 0;
  }

  /**
   * The plan that heads are under, with what they take.
   *
   * @param planned {@code [layers][kvHeads]}, of the plan
   * @param held same shape, of now
   * @param pages of each layer
   * @param otherBytes device bytes beside heads and hot set
   */
  static Plan of(
      Plan plan,
      List<List<HeadPolicy>> planned,
      List<List<HeadPolicy>> held,
      PageLayout layout,
      int pages,
      long otherBytes) {
    Plan.Builder effective = plan.toBuilder();
    long bytes = otherBytes + plan.getHotSetBytes();
    int kvHeads = layout.kvHeads();
    for (int i = 0; i < plan.getHeadsCount(); i++) {
      HeadPolicy was = planned.get(i / kvHeads).get(i % kvHeads);
      HeadPolicy is = held.get(i / kvHeads).get(i % kvHeads);
      HeadPlan.Builder head = effective.getHeadsBuilder(i);
      if (isLess(is, was)) {
        demote(head, was, is);
      }
      head.setDeviceBytes((long) pages * is.residence().deviceBytes(layout));
      bytes += head.getDeviceBytes();
    }
    return effective.setDeviceBytes(bytes).build();
  }

  private static void demote(HeadPlan.Builder head, HeadPolicy was, HeadPolicy is) {
    head.clearBits()
        .clearPredictedResidual()
        .clearFetchBytes()
        .setReason(
            "demoted: device bytes are too few for what was planned, %s; %s instead"
                .formatted(nameOf(was.residence()), nameOf(is.residence())));
    if (is.residence() == Residence.STREAMED) {
      head.setHeadClass(HeadClass.HEAD_CLASS_STREAMED)
          .clearDominantTokensMax()
          .clearResidualMass()
          .clearSketchPlanes()
          .clearOverlap()
          .setAhead(AheadUse.AHEAD_USE_UNSPECIFIED);
      return;
    }
    head.setHeadClass(HeadClass.HEAD_CLASS_SPARSE).setSketchPlanes(is.residence().planes());
    if (was.residence() == Residence.DENSE) {
      head.setDominantTokensMax(is.tokensMax())
          .setResidualMass(is.residualMass() / Sessions.residualAim(Residence.TWO_PLANES));
    }
  }

  private static String nameOf(Residence residence) {
    return switch (residence) {
      case DENSE -> "dense";
      case TWO_PLANES -> "a sketch of 2 planes";
      case ONE_PLANE -> "a sketch of 1 plane";
      case STREAMED -> "streamed";
    };
  }
}
