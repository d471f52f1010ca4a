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
 * The order in which pages that may be evicted go: by frequency and recency, as Caffeine's
 * W-TinyLFU (arXiv 1512.00727) keeps them by weight.
 *
 * <p>Only Caffeine's order is used, not its eviction: it would turn away the newest page where
 * older ones were read as often, and here the newest has just been acknowledged. The cache removes
 * the coldest itself, before a page is added, so the weight stays within the maximum and Caffeine
 * never has a cause to evict.
 */
final class EvictionOrder {
  private final Cache<PageKey, CachedPage> pages;
  private final Policy.Eviction<PageKey, CachedPage> policy;
  private final AtomicLong bytes = new AtomicLong();

  EvictionOrder(long bytesMax) {
    this.pages =
        Caffeine.newBuilder()
            .maximumWeight(bytesMax)
            .weigher((PageKey key, CachedPage page) -> page.length)
            .executor(Runnable::run)
            .build();
    this.policy = pages.policy().eviction().orElseThrow();
  }

  /** Adds a page as just used; no effect if it is there. */
  void add(CachedPage page) {
    if (pages.asMap().putIfAbsent(page.key, page) == null) {
      bytes.addAndGet(page.length);
    }
  }

  /** Removes a page; no effect if it is not there. */
  void remove(CachedPage page) {
    if (pages.asMap().remove(page.key, page)) {
      bytes.addAndGet(-page.length);
    }
  }

  void touch(PageKey key) {
    var _ = pages.getIfPresent(key);
  }

  /** The pages to go first, as many as have so many bytes together, or all. */
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

  /** Sum of the lengths of the pages in the order. */
  long bytes() {
    return bytes.get();
  }

  /** Pages in the order, by Caffeine's own count. */
  long count() {
    pages.cleanUp();
    return pages.estimatedSize();
  }
}
