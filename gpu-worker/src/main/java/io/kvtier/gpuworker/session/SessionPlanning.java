package io.kvtier.gpuworker.session;

import static io.kvtier.KvtierException.precondition;

import io.kvtier.gpuworker.core.HeadPolicy;
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
  private final HotSet hotSet;
  private final NearAttention near;
  private volatile @Nullable Plan plan;

  /** No plan yet. */
  SessionPlanning(
      LayerShape shape,
      SessionLayers layers,
      PlanSwitch switcher,
      DeviceBudget budget,
      TailorMemory tailor,
      HotSet hotSet,
      NearAttention near) {
    this.shape = shape;
    this.layers = layers;
    this.switcher = switcher;
    this.budget = budget;
    this.tailor = tailor;
    this.hotSet = hotSet;
    this.near = near;
  }

  /** The plan that layers are under; null: none yet. */
  @Nullable Plan plan() {
    return plan;
  }

  /**
   * Takes the plan that the session was opened with, or has one made, and brings all layers under
   * it, or changes nothing. No layer moves meanwhile.
   */
  Plan make(Session info, int tokens, PlanMaker planMaker) {
    if (info.hasPlan()) {
      // Whoever made it by hand may not have known the prompt's length.
      adoptWithinBudget(info.getPlan(), PlanSwitch.policiesOf(info.getPlan(), info));
      return info.getPlan();
    }
    Plan made =
        planMaker.makePlan(
            info,
            tokens,
            new ProfileMaker(shape, switcher).curves(layers.all(), tokens),
            budget.fixedBytes(tokens),
            shape.pages(tokens));
    adopt(made, PlanSwitch.policiesOf(made, info));
    return made;
  }

  /** Brings all layers under a plan, or changes nothing. */
  void adopt(Plan made, List<List<HeadPolicy>> policies) {
    layers.whileStill(() -> {
      tailor.place(policies);
      switcher.apply(layers.all(), policies);
      hotSet.resize(made.getHotSetBytes());
      near.follow(made.getNear());
      plan = made;
      return made;
    });
  }

  /** The same, where the session may have outgrown the plan. */
  void adoptWithinBudget(Plan made, List<List<HeadPolicy>> policies) {
    adopt(made, budget.fitting(layers.all(), policies));
    budget.fitHotSet(layers.all());
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
