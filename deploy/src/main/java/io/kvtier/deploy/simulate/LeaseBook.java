package io.kvtier.deploy.simulate;

import io.kvtier.page.PageKey;
import java.util.Collection;
import java.util.HashMap;
import java.util.HashSet;
import java.util.Map;
import java.util.Set;

/** Which keys owners have leased at one tier until when, as the tier answered them. */
final class LeaseBook {
  private static final class Lease {
    final Set<PageKey> keys = new HashSet<>();
    long deadlineNs;
  }

  private final Map<String, Lease> byOwner = new HashMap<>();
  private final Map<PageKey, Set<Lease>> byKey = new HashMap<>();

  void leased(String owner, Collection<PageKey> keys, long deadlineNs, long nowNs) {
    Lease lease = byOwner.computeIfAbsent(owner, _ -> new Lease());
    if (!lease.keys.isEmpty() && lease.deadlineNs <= nowNs) {
      released(owner, Set.of());
      lease = byOwner.computeIfAbsent(owner, _ -> new Lease());
    }
    lease.deadlineNs = Math.max(lease.deadlineNs, deadlineNs);
    for (PageKey key : keys) {
      if (lease.keys.add(key)) {
        byKey.computeIfAbsent(key, _ -> new HashSet<>()).add(lease);
      }
    }
  }

  /** Some keys, or without keys all. */
  void released(String owner, Collection<PageKey> keys) {
    Lease lease = byOwner.get(owner);
    if (lease == null) {
      return;
    }
    if (keys.isEmpty()) {
      lease.keys.forEach(key -> forget(key, lease));
      byOwner.remove(owner);
      return;
    }
    for (PageKey key : keys) {
      if (lease.keys.remove(key)) {
        forget(key, lease);
      }
    }
  }

  private void forget(PageKey key, Lease lease) {
    byKey.computeIfPresent(
        key,
        (_, leases) -> {
          leases.remove(lease);
          return leases.isEmpty() ? null : leases;
        });
  }

  /** Leases that can run still. */
  int running(long nowNs) {
    return (int) byOwner.values().stream().filter(lease -> lease.deadlineNs > nowNs).count();
  }

  boolean holds(PageKey key, long nowNs) {
    for (Lease lease : byKey.getOrDefault(key, Set.of())) {
      if (lease.deadlineNs > nowNs) {
        return true;
      }
    }
    return false;
  }
}
