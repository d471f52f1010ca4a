package io.kvtier.gpuworker.session;

import io.kvtier.gpuworker.core.ResidualCurve;
import io.kvtier.v1.Plan;
import io.kvtier.v1.Session;

/** Makes a session's plan; the coordinator's part. */
public interface PlanMaker {
  /**
   * Makes a plan.
   *
   * @param session its {@code device_bytes_max} is what its device has for it; 0: no matter
   * @param curves {@code [layers][kvHeads]}; empty if no queries came
   * @param fixedDeviceBytes bytes that any plan takes on the device: exact rows, and what is staged
   * @param pages whole pages that each layer has outside its window
   */
  Plan makePlan(
      Session session, int tokens, ResidualCurve[][] curves, long fixedDeviceBytes, int pages);
}
