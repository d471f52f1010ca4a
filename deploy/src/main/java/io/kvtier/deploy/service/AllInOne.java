package io.kvtier.deploy.service;

import io.kvtier.cachetier.CacheTierConfig;
import io.kvtier.coordinator.Coordinator;
import io.kvtier.coordinator.CoordinatorConfig;
import io.kvtier.gpuworker.Devices;
import io.kvtier.gpuworker.GpuWorker;
import io.kvtier.gpuworker.GpuWorkerConfig;
import io.kvtier.rpc.Closing;
import java.util.function.Consumer;

/**
 * Coordinator, cache tier and worker in one process, talking over loopback as they would between
 * machines.
 */
public final class AllInOne implements AutoCloseable {
  private final Coordinator coordinator;
  private final TierNode tier;
  private final GpuWorker worker;
  private final Closing closing;

  private AllInOne(Coordinator coordinator, TierNode tier, GpuWorker worker, Closing closing) {
    this.coordinator = coordinator;
    this.tier = tier;
    this.worker = worker;
    this.closing = closing;
  }

  /** Starts all three, each once the one before serves; the worker on the processor. */
  public static AllInOne start(
      CoordinatorConfig coordinatorConfig, CacheTierConfig tierConfig, long deviceBytesMax) {
    return start(coordinatorConfig, tierConfig, deviceBytesMax, Devices.CPU, doing -> {});
  }

  /**
   * Starts all three, each once the one before serves.
   *
   * @param device what the worker computes on, as {@link Devices#open} takes it
   * @param progress hears what the opening of a device that takes seconds is at
   */
  public static AllInOne start(
      CoordinatorConfig coordinatorConfig,
      CacheTierConfig tierConfig,
      long deviceBytesMax,
      String device,
      Consumer<String> progress) {
    Closing closing = new Closing();
    try {
      Coordinator coordinator = closing.add(Coordinator.start(coordinatorConfig));
      String target = coordinator.target();
      TierNode tier = closing.add(TierNode.start(tierConfig, target, "tier-1"));
      GpuWorkerConfig workerConfig =
          GpuWorkerConfig.of(target, "worker-1")
              .withDeviceBytesMax(deviceBytesMax)
              .withDevice(device);
      GpuWorker worker = closing.add(GpuWorker.start(workerConfig, progress));
      return new AllInOne(coordinator, tier, worker, closing);
    } catch (RuntimeException e) {
      closing.closeAfter(e);
      throw e;
    }
  }

  /** The coordinator, where clients connect. */
  public Coordinator coordinator() {
    return coordinator;
  }

  /** The cache tier. */
  public TierNode tier() {
    return tier;
  }

  /** The worker. */
  public GpuWorker worker() {
    return worker;
  }

  @Override
  public void close() {
    closing.close();
  }
}
