package io.kvtier.cachetier.cache;

import com.github.benmanes.caffeine.cache.Cache;
import com.github.benmanes.caffeine.cache.Caffeine;
import com.github.benmanes.caffeine.cache.Policy;
import io.kvtier.page.PageKey;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.concurrent.atomic.AtomicLong;

/**
 * Pages by their last use: a Caffeine cache so far below its maximum that all entries are in its
 * admission window, which is in LRU order, and none is ever evicted by it. What Caffeine gives is
 * that order, kept by uses from many threads that wait for nobody.
 */
final class RecencyList {
  private static final long NEVER_REACHED = Long.MAX_VALUE / 2;

  private final Cache<PageKey, CachedPage> pages =
      Caffeine.newBuilder()
          .maximumWeight(NEVER_REACHED)
          .weigher((PageKey key, CachedPage page) -> page.length)
          .executor(Runnable::run)
          .build();
  private final Policy.Eviction<PageKey, CachedPage> policy =
      pages.policy().eviction().orElseThrow();
  private final AtomicLong bytes = new AtomicLong();

  void add(CachedPage page) {
    if (pages.asMap().putIfAbsent(page.key, page) == null) {
      bytes.addAndGet(page.length);
    }
  }

  void remove(CachedPage page) {
    if (pages.asMap().remove(page.key, page)) {
      bytes.addAndGet(-page.length);
    }
  }

  void touch(PageKey key) {
    var _ = pages.getIfPresent(key);
  }

  /** The least recently used pages that have so many bytes together, or all. */
  List<CachedPage> coldest(long bytesWanted) {
    return policy.coldest(stream -> {
      List<CachedPage> coldest = new ArrayList<>();
      Iterator<Policy.CacheEntry<PageKey, CachedPage>> all = stream.iterator();
      for (long found = 0; found < bytesWanted && all.hasNext(); ) {
        CachedPage page = all.next().getValue();
        coldest.add(page);
        found += page.length;
      }
      return coldest;
    });
  }

  long bytes() {
    return bytes.get();
  }

  /** Pages in the list, by Caffeine's own count. */
  long count() {
    pages.cleanUp();
    return pages.estimatedSize();
  }
}
