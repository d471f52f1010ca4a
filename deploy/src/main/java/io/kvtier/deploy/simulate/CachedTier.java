package io.kvtier.deploy.simulate;

import io.kvtier.cachetier.PutResult;
import io.kvtier.cachetier.cache.CacheLimits;
import io.kvtier.cachetier.cache.PageCache;
import io.kvtier.cachetier.lease.LeaseLimits;
import io.kvtier.cachetier.lease.LeaseTable;
import io.kvtier.cachetier.watch.EventLog;
import io.kvtier.cachetier.watch.PageEvent;
import io.kvtier.page.PageKey;
import java.util.Collection;
import java.util.Iterator;
import java.util.List;
import java.util.function.LongSupplier;
import org.agrona.concurrent.UnsafeBuffer;

/** The tier's own cache: its leases, its quotas and its eviction, over pages without bytes. */
final class CachedTier implements TierPages {
  private static final int EVENTS_MAX = 1 << 15;

  /** A put looks at no byte of a page here. */
  private static final UnsafeBuffer PAGE = new UnsafeBuffer(new byte[1 << 20]);

  final PageCache cache;

  CachedTier(long bytesMax, long instance, LongSupplier clockNs) {
    this.cache =
        new PageCache(
            new SizeOnlyStore(bytesMax),
            CacheLimits.none(),
            new LeaseTable(LeaseLimits.defaults(), instance << 32 | 1),
            new EventLog(EVENTS_MAX, instance),
            (reason, ageNs, length) -> {},
            clockNs);
  }

  @Override
  public PutResult put(PageKey key, int length) {
    return cache.put(key, PAGE, 0, length);
  }

  @Override
  public boolean read(PageKey key) {
    return cache.read(key, (page, offset, length) -> true) != null;
  }

  @Override
  public boolean contains(PageKey key) {
    return cache.contains(key);
  }

  @Override
  public boolean delete(PageKey key) {
    return cache.delete(key);
  }

  @Override
  public PageCache.Lease lease(String owner, long epoch, long id, long ttlNs, List<PageKey> keys) {
    return cache.lease(owner, epoch, id, ttlNs, keys);
  }

  @Override
  public void release(String owner, long epoch, Collection<PageKey> keys) {
    cache.release(owner, epoch, keys);
  }

  @Override
  public void expire() {
    cache.expire();
  }

  @Override
  public long lastEvent() {
    return cache.events().last();
  }

  @Override
  public List<PageEvent> eventsAfter(long sequence) {
    return cache.events().after(sequence, EVENTS_MAX);
  }

  @Override
  public Iterator<PageKey> keys() {
    return cache.keys();
  }

  @Override
  public long bytesUsed() {
    return cache.bytesUsed();
  }

  @Override
  public long bytesMax() {
    return cache.bytesMax();
  }

  @Override
  public int leases() {
    return cache.leases().leases();
  }

  @Override
  public int keysPinned() {
    return cache.leases().keysPinned();
  }
}
