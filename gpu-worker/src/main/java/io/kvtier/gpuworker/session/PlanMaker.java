package io.kvtier.gpuworker.session;

import io.kvtier.gpuworker.core.ResidualCurve;
import io.kvtier.v1.Plan;
import io.kvtier.v1.Session;

/** Makes a session's plan; the coordinator's part. */
public interface PlanMaker {
  /**
   * Makes a plan.
   *
   * @param curves {@code [layers][kvHeads]}; empty if no queries came
   * @param fixedDeviceBytes bytes that any plan takes on the device at so many tokens
   * @param denseHeadBytes bytes that one more dense head takes
   */
  Plan makePlan(
      Session session,
      int tokens,
      ResidualCurve[][] curves,
      long fixedDeviceBytes,
      long denseHeadBytes);
}
