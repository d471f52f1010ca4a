package io.kvtier.deploy.command;

import io.kvtier.cachetier.CacheTierConfig;
import io.kvtier.coordinator.CoordinatorConfig;
import io.kvtier.deploy.service.AllInOne;
import io.kvtier.rpc.EndpointConfig;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;

/** All services in one process. */
@Command(
    name = "serve",
    description = "Runs coordinator, worker and cache tier in one process, on loopback.",
    mixinStandardHelpOptions = true)
public final class ServeCommand implements Callable<Integer> {
  @Mixin private final EndpointOptions endpoint = new EndpointOptions();

  @Option(
      names = "--device-bytes",
      defaultValue = "4g",
      converter = ByteSize.class,
      description = "device memory for sessions (default: ${DEFAULT-VALUE})")
  private long deviceBytes;

  @Mixin private final DeviceOptions device = new DeviceOptions();
  @Mixin private final TierOptions options = new TierOptions();
  @Mixin private final TraceOptions trace = new TraceOptions();

  @Override
  public Integer call() throws InterruptedException {
    CoordinatorConfig coordinator = CoordinatorConfig.defaults().withEndpoint(endpoint.config());
    CacheTierConfig tier = options.config(EndpointConfig.loopback());
    AllInOne service =
        AllInOne.start(
            coordinator,
            tier,
            worker -> device.applyTo(trace.applyTo(worker.withDeviceBytesMax(deviceBytes))),
            DeviceOptions::tell);
    System.out.printf(
        "coordinator ready at %s (pages at %s)%n",
        service.coordinator().target(), service.coordinator().opsUrl());
    System.out.printf(
        "cache-tier ready at %s (pages at %s)%n",
        service.tier().tier().target(), service.tier().tier().opsUrl());
    System.out.printf(
        "gpu-worker ready at %s (pages at %s)%n",
        service.worker().target(), service.worker().opsUrl());
    System.out.printf("attention on %s%n", service.worker().deviceName());
    System.out.printf("try: ./kvtier demo --endpoint %s%n", service.coordinator().target());
    Running.untilSignal(service, service.worker()::traceSummary);
    return 0;
  }
}
