package io.kvtier.deploy.command;

import io.kvtier.gpuworker.GpuWorker;
import io.kvtier.gpuworker.GpuWorkerConfig;
import java.util.concurrent.Callable;
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

  @Option(
      names = "--device-bytes",
      defaultValue = "4g",
      converter = ByteSize.class,
      description = "device memory for sessions (default: ${DEFAULT-VALUE})")
  private long deviceBytes;

  @Override
  public Integer call() throws InterruptedException {
    GpuWorker worker =
        GpuWorker.start(
            GpuWorkerConfig.of(node.coordinator, node.nodeId("worker"))
                .withEndpoint(endpoint.config())
                .withDeviceBytesMax(deviceBytes));
    System.out.printf("gpu-worker ready at %s (pages at %s)%n", worker.target(), worker.opsUrl());
    System.out.printf("attention on %s%n", worker.deviceName());
    Running.untilSignal(worker);
    return 0;
  }
}
