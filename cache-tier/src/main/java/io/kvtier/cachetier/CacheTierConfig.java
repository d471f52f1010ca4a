package io.kvtier.cachetier;

import static io.kvtier.KvtierException.requireInRange;

import io.kvtier.KvtierException;
import io.kvtier.rpc.EndpointConfig;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Optional;

/**
 * How a cache tier is set up.
 *
 * @param endpoint where it listens
 * @param bytesMax bound of the sum of the lengths of the pages stored, 16 MiB..64 TiB
 * @param dataDirectory where the pages are kept and found again after a restart, made if it does
 *     not exist; empty: a fresh temporary directory, removed on close
 */
public record CacheTierConfig(
    EndpointConfig endpoint, long bytesMax, Optional<Path> dataDirectory) {
  /** Bytes that a tier holds unless configured otherwise. */
  public static final long BYTES_MAX_DEFAULT = 4L << 30;

  private static final long BYTES_MAX_MIN = PageStore.PAGE_BYTES_MAX;
  private static final long BYTES_MAX_MAX = 64L << 40;

  public CacheTierConfig {
    requireInRange("tier bytes max", bytesMax, BYTES_MAX_MIN, BYTES_MAX_MAX);
    if (dataDirectory.isPresent()
        && Files.exists(dataDirectory.get())
        && !Files.isDirectory(dataDirectory.get())) {
      throw KvtierException.invalid(
          "data directory is %s; it must be a directory, or not exist yet", dataDirectory.get());
    }
  }

  /** Loopback on ports that the system chooses, the default bound, a temporary directory. */
  public static CacheTierConfig loopback() {
    return new CacheTierConfig(EndpointConfig.loopback(), BYTES_MAX_DEFAULT, Optional.empty());
  }
}
