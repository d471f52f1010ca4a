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

  /**
   * The least recently used pages that have so many bytes together, or all. Caffeine puts pages in
   * order from a queue of what was written, in which a thread that has not finished its write hides
   * whatever came after it. While it sees none at all, any pages will do: who asks must not take
   * the list for empty.
   */
  List<CachedPage> coldest(long bytesWanted) {
    List<CachedPage> coldest =
        policy.coldest(
            stream -> first(stream.map(Policy.CacheEntry::getValue).iterator(), bytesWanted));
    return coldest.isEmpty() ? first(pages.asMap().values().iterator(), bytesWanted) : coldest;
  }

  private static List<CachedPage> first(Iterator<CachedPage> pages, long bytesWanted) {
    List<CachedPage> first = new ArrayList<>();
    for (long found = 0; found < bytesWanted && pages.hasNext(); ) {
      CachedPage page = pages.next();
      first.add(page);
      found += page.length;
    }
    return first;
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
