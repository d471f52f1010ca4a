package io.kvtier.gpuworker.session;

import io.kvtier.client.PageTransport;
import io.kvtier.page.PageKey;
import java.util.Collection;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Set;
import java.util.UUID;

/**
 * The pages that a session shares with others, those of a prefix and, where it was resumed, those
 * of sessions that it was forked from: kept from eviction as long as the session uses them, and
 * never deleted by it. Safe for any number of threads.
 */
final class SharedPages {
  private final PageTransport tier;
  private final UUID owner;
  private final Set<PageKey> held = new LinkedHashSet<>();

  /** Of the session {@code owner}, none yet. */
  SharedPages(PageTransport tier, UUID owner) {
    this.tier = tier;
    this.owner = owner;
  }

  /** Holds those of some pages that are shared and not held yet. */
  synchronized void hold(Collection<PageKey> keys) {
    List<PageKey> fresh =
        keys.stream().filter(key -> !key.isOfSession(owner) && !held.contains(key)).toList();
    if (!fresh.isEmpty()) {
      tier.hold(fresh);
      held.addAll(fresh);
    }
  }

  synchronized boolean contains(PageKey key) {
    return held.contains(key);
  }

  synchronized List<PageKey> keys() {
    return List.copyOf(held);
  }

  /** Lets all of them go. */
  synchronized void letGo() {
    if (!held.isEmpty()) {
      tier.letGo(List.copyOf(held));
      held.clear();
    }
  }
}
