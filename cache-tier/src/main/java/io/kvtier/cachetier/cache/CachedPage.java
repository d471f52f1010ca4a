package io.kvtier.cachetier.cache;

import io.kvtier.page.PageKey;

/**
 * A stored page in the index. Compared by identity.
 *
 * <p>{@code order} is one more than that of the page stored before.
 */
final class CachedPage {
  final PageKey key;
  final int length;
  final Tenant tenant;
  final long storedNs;
  final long order;

  /** Whether it has been read since it was stored; set once, under its key's lock. */
  volatile boolean read;

  CachedPage(PageKey key, int length, Tenant tenant, long storedNs, long order) {
    this.key = key;
    this.length = length;
    this.tenant = tenant;
    this.storedNs = storedNs;
    this.order = order;
  }
}
