package io.kvtier.deploy.command;

import io.kvtier.cachetier.CacheTierConfig;
import io.kvtier.deploy.service.TierNode;
import java.nio.file.Path;
import java.util.Optional;
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
  @Mixin private final NodeOptions node = new NodeOptions();

  @Option(
      names = "--tier-bytes",
      defaultValue = "4g",
      converter = ByteSize.class,
      description = "bytes of pages (default: ${DEFAULT-VALUE})")
  private long tierBytes;

  @Option(
      names = "--data",
      description = "directory of its file (default: a temporary one, removed at the end)")
  private @Nullable Path data;

  @Override
  public Integer call() throws InterruptedException {
    CacheTierConfig config =
        new CacheTierConfig(endpoint.config(), tierBytes, Optional.ofNullable(data));
    TierNode tier = TierNode.start(config, node.coordinator, node.nodeId("tier"));
    System.out.printf(
        "cache-tier ready at %s (pages at %s)%n", tier.tier().target(), tier.tier().opsUrl());
    Running.untilSignal(tier);
    return 0;
  }
}
