package io.kvtier.deploy.command;

import io.kvtier.coordinator.Coordinator;
import io.kvtier.coordinator.CoordinatorConfig;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;

/** The coordinator alone. */
@Command(
    name = "coordinator",
    description = "Runs a coordinator: sessions, plans and membership.",
    mixinStandardHelpOptions = true)
public final class CoordinatorCommand implements Callable<Integer> {
  @Mixin private final EndpointOptions endpoint = new EndpointOptions();
  @Mixin private final ReplicationOptions replication = new ReplicationOptions();

  @Option(
      names = "--sessions-max",
      defaultValue = "1024",
      description = "sessions that may be open at once, 1..65536 (default: ${DEFAULT-VALUE})")
  private int sessionsMax;

  @Override
  public Integer call() throws InterruptedException {
    Coordinator coordinator =
        Coordinator.start(
            replication.applyTo(
                CoordinatorConfig.defaults()
                    .withEndpoint(endpoint.config())
                    .withSessionsMax(sessionsMax)));
    System.out.printf(
        "coordinator ready at %s (pages at %s)%n", coordinator.target(), coordinator.opsUrl());
    Running.untilSignal(coordinator);
    return 0;
  }
}
