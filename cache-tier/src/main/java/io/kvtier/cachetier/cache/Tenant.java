package io.kvtier.cachetier.cache;

/** A tenant that has pages: its quota, and the order in which its own go. */
final class Tenant {
  final String name;
  final long bytesMax;
  final EvictionOrder order = new EvictionOrder();

  /** Puts under way; guarded by the {@link TenantTable}. */
  int puts;

  /** Bytes stored or being stored; guarded by the {@link Ledger}. */
  long used;

  Tenant(String name, long bytesMax) {
    this.name = name;
    this.bytesMax = bytesMax;
  }
}
