package io.kvtier.cachetier.cache;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.TenantName;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;

/**
 * The tenants that have pages, or puts under way. Safe for use by many threads. Its lock is taken
 * before the ledger's.
 */
final class TenantTable {
  private final CacheLimits limits;
  private final Ledger ledger;

  /** Changed under this table's lock alone. */
  private final Map<String, Tenant> tenants = new ConcurrentHashMap<>();

  TenantTable(CacheLimits limits, Ledger ledger) {
    this.limits = limits;
    this.ledger = ledger;
  }

  /**
   * The tenant of a name, new if need be, for a put that begins; {@link #leave} must follow.
   *
   * @throws KvtierException INVALID if the name is none, EXHAUSTED if there are too many
   */
  synchronized Tenant enter(String name) {
    Tenant tenant = tenants.get(name);
    if (tenant == null) {
      var _ = TenantName.require(name);
      if (tenants.size() >= CacheLimits.TENANTS_MAX) {
        throw new KvtierException(
            Code.EXHAUSTED,
            "tier has pages of %d tenants, which is its bound; it takes none of tenant '%s'"
                .formatted(tenants.size(), name));
      }
      tenant = new Tenant(name, limits.quotaOf(name));
      tenants.put(name, tenant);
    }
    tenant.puts++;
    return tenant;
  }

  /** A put has ended. */
  synchronized void leave(Tenant tenant) {
    tenant.puts--;
    forgetIfEmpty(tenant);
  }

  /** Whoever has no pages, for a put was refused or all have gone, is not counted any more. */
  synchronized void forgetIfEmpty(Tenant tenant) {
    if (tenant.puts == 0 && ledger.used(tenant) == 0) {
      tenants.remove(tenant.name, tenant);
    }
  }

  /** Bytes that a tenant's pages have. */
  long bytesUsed(String name) {
    Tenant known = tenants.get(name);
    return known == null ? 0 : ledger.used(known);
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
