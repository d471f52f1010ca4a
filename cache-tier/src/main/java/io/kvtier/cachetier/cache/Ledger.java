package io.kvtier.cachetier.cache;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;

/**
 * The bytes of a cache and of its tenants: reserved before a page is stored, given back after it is
 * gone. Also knows of work under way that may yet make room, so that nobody is refused who need
 * only have waited for it. Safe for use by many threads.
 */
final class Ledger {
  /** What a reservation met. */
  enum Answer {
    RESERVED,
    TENANT_FULL,
    TIER_FULL
  }

  private final long bytesMax;
  private long used;
  private int underWay;
  private long changes;

  Ledger(long bytesMax) {
    this.bytesMax = bytesMax;
  }

  /** Takes bytes for a put; all or none. A put that takes some ends with {@link #ended}. */
  synchronized Answer reserve(Tenant tenant, int bytes) {
    if (bytes > tenant.bytesMax - tenant.used) {
      return Answer.TENANT_FULL;
    }
    if (bytes > bytesMax - used) {
      return Answer.TIER_FULL;
    }
    take(tenant, bytes);
    underWay++;
    return Answer.RESERVED;
  }

  /** Bytes that a tenant's quota lacks for a page; not positive: none. */
  synchronized long tenantLacks(Tenant tenant, int bytes) {
    return bytes - (tenant.bytesMax - tenant.used);
  }

  /** Bytes that the tier lacks for a page; not positive: none. */
  synchronized long tierLacks(int bytes) {
    return bytes - (bytesMax - used);
  }

  /** Counts bytes that are there already, even beyond a bound. */
  synchronized void take(Tenant tenant, int bytes) {
    tenant.used += bytes;
    used += bytes;
  }

  synchronized void giveBack(Tenant tenant, int bytes) {
    tenant.used -= bytes;
    used -= bytes;
    if (used < 0 || tenant.used < 0) {
      throw new IllegalStateException("gave back more than was taken: " + bytes);
    }
    changed();
  }

  /** Something begins that may make room, or that holds bytes which can be evicted later. */
  synchronized void begun() {
    underWay++;
  }

  /** It has ended. */
  synchronized void ended() {
    underWay--;
    changed();
  }

  /** It has ended and changed nothing. */
  synchronized void endedInVain() {
    underWay--;
    notifyAll();
  }

  /** Which pages may be evicted has changed. */
  synchronized void changed() {
    changes++;
    notifyAll();
  }

  synchronized long changes() {
    return changes;
  }

  /**
   * Waits until something has changed since {@link #changes} was {@code seen}.
   *
   * @return false if nothing has, and nothing is under way that could
   */
  synchronized boolean awaitChange(long seen) {
    while (changes == seen && underWay > 0) {
      try {
        wait();
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
        throw new KvtierException(Code.UNAVAILABLE, "the tier is stopping", e);
      }
    }
    return changes != seen;
  }

  synchronized long used() {
    return used;
  }

  synchronized long used(Tenant tenant) {
    return tenant.used;
  }

  long bytesMax() {
    return bytesMax;
  }
}
