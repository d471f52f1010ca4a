package io.kvtier.deploy.command;

import io.kvtier.cachetier.CacheTier;
import io.kvtier.cachetier.CacheTierConfig;
import io.kvtier.deploy.service.TierNode;
import io.kvtier.rpc.EndpointConfig;
import java.nio.file.Path;
import java.util.concurrent.Callable;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;

/** A cache tier alone. */
@Command(
    name = "cache-tier",
    description = "Runs a cache tier node: an off-heap store of pages.",
    mixinStandardHelpOptions = true)
public final class CacheTierCommand implements Callable<Integer> {
  @Mixin private final EndpointOptions endpoint = new EndpointOptions();

  @Option(
      names = "--coordinator",
      description = "the coordinator to join, host:port (default: none; it serves who knows it)")
  private @Nullable String coordinator;

  @Option(
      names = "--node-id",
      defaultValue = "",
      description = "name in the cluster (default: role and process id); unique, [A-Za-z0-9._-]")
  private String nodeId = "";

  @Option(
      names = "--socket",
      description = "Unix-domain socket to serve on as well, for this user's processes; Linux")
  private @Nullable Path socket;

  @Mixin private final TierOptions options = new TierOptions();

  @Override
  public Integer call() throws InterruptedException {
    EndpointConfig listeners =
        socket == null ? endpoint.config() : endpoint.config().withSocket(socket);
    CacheTierConfig config = options.config(listeners);
    if (coordinator == null) {
      CacheTier tier = CacheTier.start(config);
      announce(tier);
      Running.untilSignal(tier);
    } else {
      String id = nodeId.isEmpty() ? "tier-" + ProcessHandle.current().pid() : nodeId;
      TierNode tier = TierNode.start(config, coordinator, id);
      announce(tier.tier());
      Running.untilSignal(tier);
    }
    return 0;
  }

  private static void announce(CacheTier tier) {
    System.out.printf("cache-tier ready at %s (pages at %s)%n", tier.target(), tier.opsUrl());
    tier.socketTarget().ifPresent(target -> System.out.printf("cache-tier also at %s%n", target));
  }
}
