package io.kvtier.deploy.command;

import io.kvtier.gpuworker.GpuWorker;
import io.kvtier.gpuworker.GpuWorkerConfig;
import io.kvtier.gpuworker.grpc.Rehearsal;
import java.time.Duration;
import java.util.concurrent.Callable;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;

/** A worker alone. */
@Command(
    name = "gpu-worker",
    description = "Runs a worker: keeps sessions on its device and attends to them.",
    mixinStandardHelpOptions = true)
public final class GpuWorkerCommand implements Callable<Integer> {
  @Mixin private final EndpointOptions endpoint = new EndpointOptions();
  @Mixin private final NodeOptions node = new NodeOptions();
  @Mixin private final TraceOptions trace = new TraceOptions();
  @Mixin private final DeviceOptions device = new DeviceOptions();

  @Option(
      names = "--device-bytes",
      defaultValue = "4g",
      converter = ByteSize.class,
      description = "device memory for sessions (default: ${DEFAULT-VALUE})")
  private long deviceBytes;

  @Option(
      names = "--pending-bytes",
      converter = ByteSize.class,
      description =
          "heap for all sessions' pages that wait to be stored, 1m or more (default: a quarter of"
              + " the largest heap)")
  private @Nullable Long pendingBytes;

  @Option(
      names = "--replicas",
      defaultValue = "1",
      description = "cache tiers that keep each page, 1..8 (default: ${DEFAULT-VALUE})")
  private int replicas;

  @Option(
      names = "--write-acks",
      description =
          "of them, how many must have stored a page before it is durable (default: 2, or 1 where"
              + " there is one)")
  private @Nullable Integer writeAcks;

  @Option(
      names = "--lease-ttl",
      defaultValue = "30s",
      converter = TimeSpan.class,
      description =
          "how long cache tiers keep this worker's pages from eviction after it has died (default:"
              + " ${DEFAULT-VALUE})")
  private Duration leaseTtl = Duration.ZERO;

  @Option(
      names = "--no-rehearsal",
      description =
          "do not serve a session to itself behind the start, which takes seconds of a core; the"
              + " first sessions are slower then")
  private boolean noRehearsal;

  private GpuWorkerConfig config() {
    GpuWorkerConfig config =
        GpuWorkerConfig.of(node.coordinator, node.nodeId("worker"))
            .withEndpoint(endpoint.config())
            .withDeviceBytesMax(deviceBytes)
            .withLeaseTtl(leaseTtl)
            .withReplicas(replicas, writeAcks == null ? Math.min(2, replicas) : writeAcks);
    if (pendingBytes != null) {
      config = config.withPendingBytesTotalMax(pendingBytes);
    }
    return trace.applyTo(device.applyTo(config));
  }

  @Override
  public Integer call() throws InterruptedException {
    GpuWorker worker = GpuWorker.start(config(), DeviceOptions::tell);
    System.out.printf("gpu-worker ready at %s (pages at %s)%n", worker.target(), worker.opsUrl());
    System.out.printf("attention on %s%n", worker.deviceName());
    if (!noRehearsal) {
      Rehearsal.start();
    }
    Running.untilSignal(worker, worker::traceSummary);
    return 0;
  }
}
