package io.kvtier.cachetier.lease;

import static io.kvtier.KvtierException.requireInRange;

import java.util.concurrent.TimeUnit;

/**
 * Bounds of what leases can hold.
 *
 * @param leasesMax leases at a time, 1..2^20
 * @param keysPerLeaseMax keys of one lease, 1..2^24
 * @param keysMax keys of all leases, each lease's counted, 1..2^26; a key costs about 150 bytes of
 *     heap
 * @param ttlNsMax longest time that a lease runs without being renewed, 1 s..1 day
 */
public record LeaseLimits(int leasesMax, int keysPerLeaseMax, int keysMax, long ttlNsMax) {
  /** Longest name of an owner, in characters. */
  public static final int OWNER_LENGTH_MAX = 128;

  public LeaseLimits {
    requireInRange("leases max", leasesMax, 1, 1 << 20);
    requireInRange("keys per lease max", keysPerLeaseMax, 1, 1 << 24);
    requireInRange("leased keys max", keysMax, 1, 1 << 26);
    requireInRange(
        "lease ttl max, ns", ttlNsMax, TimeUnit.SECONDS.toNanos(1), TimeUnit.DAYS.toNanos(1));
  }

  /** 4,096 leases of 2,097,152 keys, each and in all, an hour at most. */
  public static LeaseLimits defaults() {
    return new LeaseLimits(1 << 12, 1 << 21, 1 << 21, TimeUnit.HOURS.toNanos(1));
  }
}
