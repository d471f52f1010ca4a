package io.kvtier.deploy.command;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.kvtier.KvtierException;
import io.kvtier.cachetier.CacheTierConfig;
import io.kvtier.cachetier.DirectConfig;
import io.kvtier.cachetier.Verification;
import io.kvtier.cachetier.cache.CacheLimits;
import io.kvtier.cachetier.lease.LeaseLimits;
import io.kvtier.rpc.EndpointConfig;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Map;
import java.util.Optional;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;
import picocli.CommandLine;

final class TierOptionsTest {
  private static CacheTierConfig parse(String... args) {
    TierOptions options = new TierOptions();
    new CommandLine(options).setCaseInsensitiveEnumValuesAllowed(true).parseArgs(args);
    return options.config(EndpointConfig.loopback());
  }

  @Test
  void withoutOptionsATierIsAsConfiguredByDefault() {
    assertThat(parse()).isEqualTo(CacheTierConfig.loopback());
  }

  @Test
  void everyOptionArrives() {
    assertThat(
            parse(
                "--tier-bytes=64m",
                "--memory",
                "--ttl=12h",
                "--tenant-bytes=20m",
                "--quota=a=1g",
                "--quota=team-b=32m",
                "--no-evict",
                "--direct-port=7500",
                "--no-direct",
                "--no-files",
                "--scrub-rate=0",
                "--verify=reader"))
        .isEqualTo(
            new CacheTierConfig(
                EndpointConfig.loopback(),
                64 << 20,
                Optional.empty(),
                true,
                new CacheLimits(
                    Optional.of(Duration.ofHours(12)),
                    20 << 20,
                    Map.of("a", 1L << 30, "team-b", 32L << 20),
                    false),
                LeaseLimits.defaults(),
                0,
                Verification.READER,
                new DirectConfig(false, 7500, false)));
    assertThat(parse("--data=pages").dataDirectory()).contains(Path.of("pages"));
  }

  @ParameterizedTest
  @ValueSource(
      strings = {"--ttl=12", "--ttl=1w", "--ttl=-1s", "--quota=a", "--quota=a=b", "--verify=me"})
  void whatIsNoValueIsRefused(String arg) {
    assertThatThrownBy(() -> parse(arg)).isInstanceOf(CommandLine.ParameterException.class);
  }

  @Test
  void whatIsOutOfBoundsIsRefused() {
    assertThatThrownBy(() -> parse("--quota=a=1m"))
        .isInstanceOf(KvtierException.class)
        .hasMessageStartingWith("quota of tenant a is 1048576; it must be 16777216..");
  }
}
