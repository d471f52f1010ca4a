package io.kvtier.deploy.command;

import io.kvtier.cachetier.CacheTierConfig;
import io.kvtier.cachetier.DirectConfig;
import io.kvtier.cachetier.Verification;
import io.kvtier.cachetier.cache.CacheLimits;
import io.kvtier.cachetier.lease.LeaseLimits;
import io.kvtier.rpc.EndpointConfig;
import java.nio.file.Path;
import java.time.Duration;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Optional;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Option;

/** What a cache tier keeps, where and for how long. */
final class TierOptions {
  @Option(
      names = "--tier-bytes",
      defaultValue = "4g",
      converter = ByteSize.class,
      description = "bytes of pages in the cache tier (default: ${DEFAULT-VALUE})")
  private long tierBytes;

  @Option(
      names = "--data",
      description = "directory of its files (default: a temporary one, removed at the end)")
  private @Nullable Path data;

  @Option(
      names = "--memory",
      description = "keeps the pages in plain memory instead of mapped files; not with --data")
  private boolean memory;

  @Option(
      names = "--ttl",
      converter = TimeSpan.class,
      description =
          "removes unleased pages this long after they were stored, for example 90s, 10m, 12h or"
              + " 7d (default: never)")
  private @Nullable Duration ttl;

  @Option(
      names = "--tenant-bytes",
      converter = ByteSize.class,
      description = "bytes of pages of each tenant without a --quota (default: no bound)")
  private long tenantBytes = Long.MAX_VALUE;

  @Option(
      names = "--quota",
      converter = {KeepText.class, ByteSize.class},
      paramLabel = "TENANT=BYTES",
      description = "bytes of pages of one tenant; may be given for each")
  private Map<String, Long> quotas = new LinkedHashMap<>();

  @Option(
      names = "--no-evict",
      description = "refuses pages that do not fit, instead of evicting unleased ones for them")
  private boolean keeps;

  @Option(
      names = "--scrub-rate",
      defaultValue = "16m",
      converter = ByteSize.class,
      description =
          "bytes of stored pages verified in the background in a second; 0: none (default:"
              + " ${DEFAULT-VALUE})")
  private long scrubRate;

  @Option(
      names = "--verify",
      defaultValue = "tier",
      description =
          "who verifies pages that are read: tier, or reader, for readers alone that verify all"
              + " they get (default: ${DEFAULT-VALUE})")
  private Verification verification = Verification.TIER;

  @Option(
      names = "--direct-port",
      defaultValue = "0",
      description = "TCP port of the direct path for page bytes; 0: a free one (default)")
  private int directPort;

  @Option(names = "--no-direct", description = "leaves the direct path out: gRPC alone")
  private boolean noDirect;

  @Option(
      names = "--no-files",
      description = "does not tell processes on this host which files they may read pages in")
  private boolean noFiles;

  CacheTierConfig config(EndpointConfig endpoint) {
    return new CacheTierConfig(
        endpoint,
        tierBytes,
        Optional.ofNullable(data),
        memory,
        new CacheLimits(Optional.ofNullable(ttl), tenantBytes, quotas, !keeps),
        LeaseLimits.defaults(),
        scrubRate,
        verification,
        new DirectConfig(!noDirect, directPort, !noFiles));
  }
}
