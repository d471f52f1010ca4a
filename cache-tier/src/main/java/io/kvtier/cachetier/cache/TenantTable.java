package io.kvtier.cachetier.cache;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import org.jspecify.annotations.Nullable;

/** The tenants that have had pages since the start. Safe for use by many threads. */
final class TenantTable {
  private final CacheLimits limits;
  private final Map<String, Tenant> tenants = new ConcurrentHashMap<>();

  TenantTable(CacheLimits limits) {
    this.limits = limits;
  }

  /**
   * The tenant of a name, new if need be.
   *
   * @throws KvtierException INVALID if the name is none, EXHAUSTED if there are too many
   */
  Tenant of(String name) {
    Tenant tenant = tenants.get(name);
    return tenant != null ? tenant : add(name);
  }

  private synchronized Tenant add(String name) {
    CacheLimits.requireTenant(name);
    Tenant tenant = tenants.get(name);
    if (tenant == null) {
      if (tenants.size() == CacheLimits.TENANTS_MAX) {
        throw new KvtierException(
            Code.EXHAUSTED,
            "tier has had pages of %d tenants since its start, which is its bound; it takes none of"
                    .formatted(CacheLimits.TENANTS_MAX)
                + " tenant '"
                + name
                + "'");
      }
      tenant = new Tenant(name, limits.quotaOf(name));
      tenants.put(name, tenant);
    }
    return tenant;
  }

  @Nullable Tenant find(String name) {
    return tenants.get(name);
  }

  /** The tenant that has the most bytes to give; the one that asks if no other has more. */
  Tenant mostToGive(Tenant asking) {
    Tenant most = asking;
    for (Tenant tenant : tenants.values()) {
      if (tenant.order.bytes() > most.order.bytes()) {
        most = tenant;
      }
    }
    return most;
  }

  /** Pages that may be evicted, as the orders count them. */
  long evictable() {
    return tenants.values().stream().mapToLong(tenant -> tenant.order.count()).sum();
  }
}
