package io.kvtier.cachetier.cache;

import static io.kvtier.KvtierException.requireInRange;

import io.kvtier.KvtierException;
import io.kvtier.TenantName;
import io.kvtier.cachetier.PageStore;
import java.time.Duration;
import java.util.Map;
import java.util.Optional;

/**
 * Bounds of a cache beside its bytes.
 *
 * @param ttl longest time that an unleased page stays after it was stored, 1 s..10 years; empty:
 *     without end
 * @param tenantBytesMax bound of the bytes of each tenant that has no quota of its own, at least
 *     {@link PageStore#PAGE_BYTES_MAX}
 * @param quotas bounds of the bytes of tenants by name, at least {@link PageStore#PAGE_BYTES_MAX}
 *     each
 * @param evicts whether unleased pages make room for new ones; otherwise a put that does not fit is
 *     refused
 */
public record CacheLimits(
    Optional<Duration> ttl, long tenantBytesMax, Map<String, Long> quotas, boolean evicts) {
  /** Most tenants that have pages at a time. */
  public static final int TENANTS_MAX = 1024;

  private static final Duration TTL_MIN = Duration.ofSeconds(1);
  private static final Duration TTL_MAX = Duration.ofDays(3650);

  public CacheLimits {
    ttl.ifPresent(time -> {
      if (time.compareTo(TTL_MIN) < 0 || time.compareTo(TTL_MAX) > 0) {
        throw KvtierException.invalid("ttl is %s; it must be %s..%s", time, TTL_MIN, TTL_MAX);
      }
    });
    requireInRange("tenant bytes max", tenantBytesMax, PageStore.PAGE_BYTES_MAX, Long.MAX_VALUE);
    quotas = Map.copyOf(quotas);
    quotas.forEach((tenant, bytes) -> {
      var _ = TenantName.require(tenant);
      requireInRange("quota of tenant " + tenant, bytes, PageStore.PAGE_BYTES_MAX, Long.MAX_VALUE);
    });
  }

  /** Unleased pages make room. */
  public CacheLimits(Optional<Duration> ttl, long tenantBytesMax, Map<String, Long> quotas) {
    this(ttl, tenantBytesMax, quotas, true);
  }

  /** No time to live, no quotas; unleased pages make room. */
  public static CacheLimits none() {
    return new CacheLimits(Optional.empty(), Long.MAX_VALUE, Map.of());
  }

  /** No time to live, no quotas; what is stored stays until it is deleted. */
  public static CacheLimits keeping() {
    return new CacheLimits(Optional.empty(), Long.MAX_VALUE, Map.of(), false);
  }

  long quotaOf(String tenant) {
    return quotas.getOrDefault(tenant, tenantBytesMax);
  }
}
