package io.kvtier.cachetier.cache;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;

/** Why a page does not fit. */
final class CacheFull {
  private CacheFull() {}

  /** It is longer than all that there is. */
  static KvtierException never(Ledger ledger, Tenant tenant, int length) {
    return new KvtierException(
        Code.EXHAUSTED,
        "page of %d bytes never fits: the tier takes %d, tenant '%s' %d"
            .formatted(length, ledger.bytesMax(), tenant.name, tenant.bytesMax));
  }

  /** The tier is full, and nothing may be evicted. */
  static KvtierException tier(Ledger ledger, boolean evicts, int length) {
    return full("tier", ledger.used(), ledger.bytesMax(), evicts, length);
  }

  /** The tenant's quota is reached, and nothing of it may be evicted. */
  static KvtierException tenant(Ledger ledger, Tenant tenant, boolean evicts, int length) {
    return full(
        "tenant '" + tenant.name + "'", ledger.used(tenant), tenant.bytesMax, evicts, length);
  }

  private static KvtierException full(
      String what, long used, long bytesMax, boolean evicts, int length) {
    return new KvtierException(
        Code.EXHAUSTED,
        "%s is full: %d of %d bytes; %s: a page of %d does not fit"
            .formatted(
                what,
                used,
                bytesMax,
                evicts
                    ? "all of them are leased, until leases are released or end"
                    : "nothing is evicted, delete pages or raise the bound",
                length));
  }
}
