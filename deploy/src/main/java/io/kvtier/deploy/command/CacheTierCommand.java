package io.kvtier.deploy.command;

import io.kvtier.deploy.service.TierNode;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;

/** A cache tier alone. */
@Command(
    name = "cache-tier",
    description = "Runs a cache tier node: an off-heap store of pages.",
    mixinStandardHelpOptions = true)
public final class CacheTierCommand implements Callable<Integer> {
  @Mixin private final EndpointOptions endpoint = new EndpointOptions();
  @Mixin private final NodeOptions node = new NodeOptions();

  @Mixin private final TierOptions options = new TierOptions();

  @Override
  public Integer call() throws InterruptedException {
    TierNode tier =
        TierNode.start(options.config(endpoint.config()), node.coordinator, node.nodeId("tier"));
    System.out.printf(
        "cache-tier ready at %s (pages at %s)%n", tier.tier().target(), tier.tier().opsUrl());
    Running.untilSignal(tier);
    return 0;
  }
}
