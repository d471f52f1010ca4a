package io.kvtier.deploy.simulate;

import io.kvtier.cachetier.PutResult;
import io.kvtier.cachetier.cache.PageCache;
import io.kvtier.cachetier.watch.PageEvent;
import io.kvtier.page.PageKey;
import java.util.Collection;
import java.util.Iterator;
import java.util.List;

/**
 * What a cluster asks of one tier's pages. The product's cache, or a test's with a fault planted.
 */
interface TierPages {
  /** Stores a page; refusals as {@link PageCache#put}. */
  PutResult put(PageKey key, int length);

  /** Whether the page is served. */
  boolean read(PageKey key);

  /** Whether the page is stored. */
  boolean contains(PageKey key);

  /** Deletes a page unless it is leased. */
  boolean delete(PageKey key);

  PageCache.Lease lease(String owner, long epoch, long id, long ttlNs, List<PageKey> keys);

  void release(String owner, long epoch, Collection<PageKey> keys);

  /** Ends what is over. */
  void expire();

  /** The number of the latest event. */
  long lastEvent();

  /** What has been stored and removed after an event, in order. */
  List<PageEvent> eventsAfter(long sequence);

  /** All keys. */
  Iterator<PageKey> keys();

  long bytesUsed();

  long bytesMax();

  /** Leases that run. */
  int leases();

  /** Keys that leases pin. */
  int keysPinned();
}
