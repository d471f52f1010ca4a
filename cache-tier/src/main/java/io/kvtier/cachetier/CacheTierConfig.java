package io.kvtier.cachetier;

import static io.kvtier.KvtierException.requireInRange;

import io.kvtier.KvtierException;
import io.kvtier.cachetier.cache.CacheLimits;
import io.kvtier.cachetier.lease.LeaseLimits;
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
 *     not exist; empty: nothing outlives the tier
 * @param memory keeps the pages in plain memory; otherwise they are in mapped files, without a data
 *     directory in temporary ones. Only without a data directory
 * @param limits time to live, quotas
 * @param leases bounds of leases
 * @param scrubBytesPerSecond bytes of stored pages that are verified in the background in a second,
 *     0..2^40; 0: none
 * @param verification who verifies pages that are read
 * @param direct the ways beside gRPC
 */
public record CacheTierConfig(
    EndpointConfig endpoint,
    long bytesMax,
    Optional<Path> dataDirectory,
    boolean memory,
    CacheLimits limits,
    LeaseLimits leases,
    long scrubBytesPerSecond,
    Verification verification,
    DirectConfig direct) {
  /** Bytes that a tier holds unless configured otherwise. */
  public static final long BYTES_MAX_DEFAULT = 4L << 30;

  /** Bytes verified in the background in a second unless configured otherwise. */
  public static final long SCRUB_BYTES_PER_SECOND_DEFAULT = 16 << 20;

  private static final long BYTES_MAX_MIN = PageStore.PAGE_BYTES_MAX;
  private static final long BYTES_MAX_MAX = 64L << 40;

  public CacheTierConfig {
    requireInRange("tier bytes max", bytesMax, BYTES_MAX_MIN, BYTES_MAX_MAX);
    requireInRange("scrub bytes per second", scrubBytesPerSecond, 0, 1L << 40);
    if (dataDirectory.isPresent()
        && Files.exists(dataDirectory.get())
        && !Files.isDirectory(dataDirectory.get())) {
      throw KvtierException.invalid(
          "data directory is %s; it must be a directory, or not exist yet", dataDirectory.get());
    }
    if (dataDirectory.isPresent() && memory) {
      throw KvtierException.invalid(
          "data directory is %s, and pages are to be in plain memory: give one of the two",
          dataDirectory.get());
    }
  }

  /** With all ways beside gRPC. */
  public CacheTierConfig(
      EndpointConfig endpoint,
      long bytesMax,
      Optional<Path> dataDirectory,
      boolean memory,
      CacheLimits limits,
      LeaseLimits leases,
      long scrubBytesPerSecond,
      Verification verification) {
    this(
        endpoint,
        bytesMax,
        dataDirectory,
        memory,
        limits,
        leases,
        scrubBytesPerSecond,
        verification,
        DirectConfig.defaults());
  }

  /**
   * Pages in mapped files, the unleased evicted where room lacks; all else as {@link #loopback} has
   * it.
   */
  public CacheTierConfig(EndpointConfig endpoint, long bytesMax, Optional<Path> dataDirectory) {
    this(
        endpoint,
        bytesMax,
        dataDirectory,
        false,
        CacheLimits.none(),
        LeaseLimits.defaults(),
        SCRUB_BYTES_PER_SECOND_DEFAULT,
        Verification.TIER);
  }

  /**
   * Loopback on ports that the system chooses, the default bound, temporary mapped files; the
   * unleased are evicted where room lacks.
   */
  public static CacheTierConfig loopback() {
    return new CacheTierConfig(EndpointConfig.loopback(), BYTES_MAX_DEFAULT, Optional.empty());
  }
}
