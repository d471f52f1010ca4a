package io.kvtier.cachetier.cache;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import java.util.Iterator;
import java.util.List;
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

  /**
   * The coldest pages of the tenant that has the most bytes to give, of the one that asks if no
   * other has more; none only if no tenant has any.
   */
  List<CachedPage> coldest(Tenant asking, long bytesWanted) {
    Tenant most = asking;
    for (Tenant tenant : tenants.values()) {
      if (tenant.order.bytes() > most.order.bytes()) {
        most = tenant;
      }
    }
    List<CachedPage> coldest = most.order.coldest(bytesWanted);
    // Leases may have taken all that it had a moment ago.
    for (Iterator<Tenant> all = tenants.values().iterator(); coldest.isEmpty() && all.hasNext(); ) {
      coldest = all.next().order.coldest(bytesWanted);
    }
    return coldest;
  }

  /** Pages that may be evicted, as the orders count them. */
  long evictable() {
    return tenants.values().stream().mapToLong(tenant -> tenant.order.count()).sum();
  }
}
