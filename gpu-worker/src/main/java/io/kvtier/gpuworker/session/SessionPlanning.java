package io.kvtier.gpuworker.session;

import static io.kvtier.KvtierException.precondition;

import com.google.errorprone.annotations.CanIgnoreReturnValue;
import io.kvtier.gpuworker.core.HeadPolicy;
import io.kvtier.gpuworker.core.ResidualCurve;
import io.kvtier.gpuworker.device.LayerShape;
import io.kvtier.v1.Plan;
import io.kvtier.v1.Session;
import java.util.List;
import java.util.stream.Stream;
import org.jspecify.annotations.Nullable;

/** The plan of a session: how it is made, and how the layers come under it. Thread-safe. */
final class SessionPlanning {
  private final LayerShape shape;
  private final SessionLayers layers;
  private final PlanSwitch switcher;
  private final DeviceBudget budget;
  private final TailorMemory tailor;
  private final NearAttention near;
  private volatile @Nullable Plan plan;

  /** No plan yet. */
  SessionPlanning(
      LayerShape shape,
      SessionLayers layers,
      PlanSwitch switcher,
      DeviceBudget budget,
      TailorMemory tailor,
      NearAttention near) {
    this.shape = shape;
    this.layers = layers;
    this.switcher = switcher;
    this.budget = budget;
    this.tailor = tailor;
    this.near = near;
  }

  /** The plan that layers are under; null: none yet. */
  @Nullable Plan plan() {
    return plan;
  }

  /**
   * Takes the plan that the session was opened with, or has one made, and brings all layers under
   * it, or changes nothing. No layer moves meanwhile.
   *
   * @return the plan, or what it has become where device bytes are too few for it
   */
  Plan make(Session info, int tokens, PlanMaker planMaker) {
    if (info.hasPlan()) {
      // Whoever made it by hand may not have known the prompt's length.
      return adoptWithinBudget(info.getPlan(), PlanSwitch.policiesOf(info.getPlan(), info));
    }
    // Told to the planner as the session's bound: it may be what the device has for it.
    budget.makeRoomForPlan();
    long most = budget.planBytes();
    boolean places = layers.get(0).device.placesHeads();
    Plan made =
        planMaker.makePlan(
            places ? info.toBuilder().setDeviceBytesMax(most).build() : info,
            tokens,
            curves(tokens),
            budget.fixedBytes(tokens, most),
            shape.pages(tokens));
    return adoptWithinBudget(made, PlanSwitch.policiesOf(made, info));
  }

  /** None where the device has no room for the sketch of a head that may hold none. */
  private ResidualCurve[][] curves(int tokens) {
    boolean room = budget.makeRoomForSketches(shape.pages(tokens), 1);
    return room
        ? new ProfileMaker(shape, switcher).curves(layers.all(), tokens)
        : new ResidualCurve[0][];
  }

  /** Brings all layers under a plan, or changes nothing. */
  void adopt(Plan made, List<List<HeadPolicy>> policies) {
    layers.whileStill(() -> {
      tailor.place(policies);
      budget.adopt(policies);
      budget.sizeHotSet(made.getHotSetBytes());
      near.follow(made.getNear());
      plan = made;
      return made;
    });
  }

  /**
   * The same, where the session may have outgrown the plan, or the device has less than it.
   *
   * @return the plan, or what it has become
   */
  @CanIgnoreReturnValue
  Plan adoptWithinBudget(Plan made, List<List<HeadPolicy>> policies) {
    return layers.whileStill(() -> {
      adopt(made, budget.fitting(policies));
      return budget.effective(made, policies);
    });
  }

  /** What the heads are under now: the plan, and what growth made of it. No layer moves. */
  List<List<HeadPolicy>> policies() {
    return Stream.of(layers.all()).map(layer -> layer.policies).toList();
  }

  /**
   * Requires that there is a plan.
   *
   * @throws io.kvtier.KvtierException PRECONDITION
   */
  void require(Session info) {
    if (plan == null) {
      throw precondition(
          "session %s has no plan yet; finish its prefill first", info.getSessionId());
    }
  }
}
