package io.kvtier.gpuworker.session;

import io.kvtier.client.PageTransport;
import io.kvtier.gpuworker.core.MeasuredRates;
import io.kvtier.gpuworker.device.AttentionDevice;
import io.kvtier.gpuworker.trace.StepListener;
import java.util.concurrent.ExecutorService;

/**
 * What a session runs on, and shares with others.
 *
 * @param pool what the device's sessions share of its memory
 * @param tier keeps its pages
 * @param background runs what no call waits for
 * @param pending of all sessions together
 * @param listener hears of each step
 * @param rates hears of each fetch from the tier and each query, and how long it took
 */
public record SessionHost(
    AttentionDevice device,
    DevicePool pool,
    PageTransport tier,
    ExecutorService background,
    SessionLimits limits,
    PendingBytes pending,
    StepListener listener,
    MeasuredRates rates) {
  /** A host of one session, which has the device to itself. */
  public SessionHost(
      AttentionDevice device,
      PageTransport tier,
      ExecutorService background,
      SessionLimits limits,
      PendingBytes pending,
      StepListener listener) {
    this(
        device,
        new DevicePool(device.memory()),
        tier,
        background,
        limits,
        pending,
        listener,
        new MeasuredRates());
  }
}
