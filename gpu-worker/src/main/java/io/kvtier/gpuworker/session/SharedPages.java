package io.kvtier.gpuworker.session;

import io.kvtier.client.PageTransport;
import io.kvtier.page.PageKey;
import java.util.Collection;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Set;

/**
 * The pages that a session shares with others: kept from eviction as long as the session uses them,
 * and never deleted by it. Safe for any number of threads.
 */
final class SharedPages {
  private final PageTransport tier;
  private final Set<PageKey> held = new LinkedHashSet<>();

  SharedPages(PageTransport tier) {
    this.tier = tier;
  }

  /** Holds those of some pages that are shared and not held yet. */
  synchronized void hold(Collection<PageKey> keys) {
    List<PageKey> fresh =
        keys.stream().filter(key -> key.isOfPrefix() && !held.contains(key)).toList();
    if (!fresh.isEmpty()) {
      tier.hold(fresh);
      held.addAll(fresh);
    }
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
