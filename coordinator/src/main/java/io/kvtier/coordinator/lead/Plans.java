package io.kvtier.coordinator.lead;

import static io.kvtier.KvtierException.requireInRange;

import io.kvtier.coordinator.metrics.CoordinatorMeters;
import io.kvtier.coordinator.plan.Curves;
import io.kvtier.coordinator.plan.PlanInputs;
import io.kvtier.coordinator.plan.PlanRates;
import io.kvtier.coordinator.plan.Planner;
import io.kvtier.coordinator.plan.TailorPlanner;
import io.kvtier.coordinator.profile.ModelKey;
import io.kvtier.coordinator.profile.ProfileTable;
import io.kvtier.page.PageLayout;
import io.kvtier.v1.Command;
import io.kvtier.v1.MakePlanRequest;
import io.kvtier.v1.Plan;
import io.kvtier.v1.PlanMode;
import io.kvtier.v1.Session;
import io.kvtier.v1.SessionRecord;
import io.kvtier.v1.SetPlan;

/** Makes sessions' plans, and refines the profiles of their models by them. Thread-safe. */
public final class Plans {
  private static final int QUERIES_MAX = 64;

  private final Lead lead;
  private final CoordinatorMeters meters;

  public Plans(Lead lead, CoordinatorMeters meters) {
    this.lead = lead;
    this.meters = meters;
  }

  /** Plans outside the lock: a profile of many heads takes a while. */
  public Plan make(MakePlanRequest request) {
    String id = request.getSessionId();
    long epoch = request.getEpoch();
    SessionRecord record = lead.call(view -> view.state().sessions().get(id, epoch));
    Session session = record.getSession();
    PlanInputs inputs = inputs(request, session);
    if (record.getPlanGiven()) {
      meters.planGiven();
      return session.getPlan();
    }
    ModelKey key = ModelKey.of(session.getGeometry(), session.getMode());
    PlanInputs known = refined(key, inputs, request.getQueries());
    Plan plan =
        session.getMode() == PlanMode.PLAN_MODE_TAILORKV
            ? TailorPlanner.plan(known, session.getTokensMax())
            : Planner.plan(known);
    SetPlan.Builder change =
        SetPlan.newBuilder()
            .setSessionId(id)
            .setEpoch(epoch)
            .setPlan(plan)
            .setTokens(inputs.tokens());
    if (!record.getProfiled() && isSample(inputs, request.getQueries())) {
      change.addAllHeads(request.getHeadsList());
    }
    var _ = lead.submit(Command.newBuilder().setSetPlan(change));
    meters.planMade();
    return plan;
  }

  /** Whether a session's own curves are good enough to be planned by, whatever the profile says. */
  private static boolean isSample(PlanInputs inputs, int queries) {
    return !inputs.curves().isEmpty()
        && queries >= ProfileTable.QUERIES_MIN
        && inputs.tokens() >= ProfileTable.TOKENS_MIN;
  }

  /** The inputs with the model's curves where the session's own are missing or too rough. */
  private PlanInputs refined(ModelKey key, PlanInputs inputs, int queries) {
    if (!inputs.curves().isEmpty() && queries >= ProfileTable.QUERIES_MIN) {
      return inputs;
    }
    ProfileTable.Known known = lead.call(view -> view.state().profiles().at(key, inputs.tokens()));
    return known.curves().isEmpty() ? inputs : inputs.withProfile(known.curves(), known.sessions());
  }

  private static PlanInputs inputs(MakePlanRequest request, Session session) {
    int tokens =
        (int)
            requireInRange(
                "tokens", Integer.toUnsignedLong(request.getTokens()), 1, session.getTokensMax());
    requireInRange(
        "queries",
        Integer.toUnsignedLong(request.getQueries()),
        request.getHeadsCount() == 0 ? 0 : 1,
        request.getHeadsCount() == 0 ? 0 : QUERIES_MAX);
    return new PlanInputs(
            session.getGeometry(),
            tokens,
            session.getDeviceBytesMax(),
            request.getFixedDeviceBytes(),
            pages(request, tokens),
            Curves.of(request.getHeadsList(), session.getGeometry(), tokens))
        .withDeviceBytesThere(request.getDeviceBytesThere())
        .withRates(PlanRates.told(request.getFetchRate(), request.getAttendRate()));
  }

  private static int pages(MakePlanRequest request, int tokens) {
    return (int)
        requireInRange(
            "pages", Integer.toUnsignedLong(request.getPages()), 0, tokens / PageLayout.TOKENS);
  }
}
