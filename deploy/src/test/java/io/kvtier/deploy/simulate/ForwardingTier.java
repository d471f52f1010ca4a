package io.kvtier.deploy.simulate;

import io.kvtier.cachetier.PutResult;
import io.kvtier.cachetier.cache.PageCache;
import io.kvtier.cachetier.watch.PageEvent;
import io.kvtier.page.PageKey;
import java.util.Collection;
import java.util.Iterator;
import java.util.List;

/** The product's tier, to plant a fault in. */
class ForwardingTier implements TierPages {
  private final TierPages pages;

  ForwardingTier(TierPages pages) {
    this.pages = pages;
  }

  @Override
  public PutResult put(PageKey key, int length) {
    return pages.put(key, length);
  }

  @Override
  public boolean read(PageKey key) {
    return pages.read(key);
  }

  @Override
  public boolean contains(PageKey key) {
    return pages.contains(key);
  }

  @Override
  public boolean delete(PageKey key) {
    return pages.delete(key);
  }

  @Override
  public PageCache.Lease lease(String owner, long epoch, long id, long ttlNs, List<PageKey> keys) {
    return pages.lease(owner, epoch, id, ttlNs, keys);
  }

  @Override
  public void release(String owner, long epoch, Collection<PageKey> keys) {
    pages.release(owner, epoch, keys);
  }

  @Override
  public void expire() {
    pages.expire();
  }

  @Override
  public long lastEvent() {
    return pages.lastEvent();
  }

  @Override
  public List<PageEvent> eventsAfter(long sequence) {
    return pages.eventsAfter(sequence);
  }

  @Override
  public Iterator<PageKey> keys() {
    return pages.keys();
  }

  @Override
  public long bytesUsed() {
    return pages.bytesUsed();
  }

  @Override
  public long bytesMax() {
    return pages.bytesMax();
  }

  @Override
  public int leases() {
    return pages.leases();
  }

  @Override
  public int keysPinned() {
    return pages.keysPinned();
  }
}
