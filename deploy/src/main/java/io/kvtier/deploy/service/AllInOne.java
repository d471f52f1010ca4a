package io.kvtier.deploy.service;

import io.kvtier.cachetier.CacheTierConfig;
import io.kvtier.coordinator.Coordinator;
import io.kvtier.coordinator.CoordinatorConfig;
import io.kvtier.gpuworker.GpuWorker;
import io.kvtier.gpuworker.GpuWorkerConfig;
import io.kvtier.rpc.Closing;
import java.util.function.Consumer;
import java.util.function.UnaryOperator;

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
    return start(
        coordinatorConfig, tierConfig, worker -> worker.withDeviceBytesMax(deviceBytesMax));
  }

  /** Starts all three, each once the one before serves, the worker with other settings. */
  public static AllInOne start(
      CoordinatorConfig coordinatorConfig,
      CacheTierConfig tierConfig,
      UnaryOperator<GpuWorkerConfig> workerConfig) {
    return start(coordinatorConfig, tierConfig, workerConfig, doing -> {});
  }

  /**
   * Starts all three, each once the one before serves.
   *
   * @param workerConfig changes a worker's default settings
   * @param progress hears what the opening of a device that takes seconds is at
   */
  public static AllInOne start(
      CoordinatorConfig coordinatorConfig,
      CacheTierConfig tierConfig,
      UnaryOperator<GpuWorkerConfig> workerConfig,
      Consumer<String> progress) {
    Closing closing = new Closing();
    try {
      Coordinator coordinator = closing.add(Coordinator.start(coordinatorConfig));
      String target = coordinator.target();
      TierNode tier = closing.add(TierNode.start(tierConfig, target, "tier-1"));
      GpuWorkerConfig defaults = GpuWorkerConfig.of(target, "worker-1");
      GpuWorker worker = closing.add(GpuWorker.start(workerConfig.apply(defaults), progress));
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
