package io.kvtier.deploy.simulate;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.cachetier.PutResult;
import io.kvtier.cachetier.cache.PageCache;
import io.kvtier.cachetier.watch.PageEvent;
import io.kvtier.coordinator.prefix.PrefixDirectory;
import io.kvtier.page.PageKey;
import io.kvtier.v1.Node;
import io.kvtier.v1.Role;
import java.util.Collection;
import java.util.List;

/** A cache tier as its callers meet it: up or not; every answer is entered in the books. */
final class TierNode {
  final int index;
  final String id;
  LeaseBook leases = new LeaseBook();
  private final Audit audit;
  private final EventQueue time;
  private TierPages pages;
  private boolean up = true;
  private long instance;
  private long heardNs;
  private long heard;
  private long watched;
  private boolean snapshotDue = true;

  TierNode(int index, TierPages pages, Audit audit, EventQueue time) {
    this.index = index;
    this.id = "tier-%04d".formatted(index);
    this.pages = pages;
    this.audit = audit;
    this.time = time;
    this.instance = 1;
  }

  boolean up() {
    return up;
  }

  TierPages pages() {
    return pages;
  }

  long instance() {
    return instance;
  }

  /** When the coordinator heard it last. */
  long heardNs() {
    return heardNs;
  }

  void heard(long nowNs) {
    heardNs = nowNs;
  }

  /** Bytes that it holds; 0 while it is down. */
  long bytes() {
    return up ? pages.bytesUsed() : 0;
  }

  /** What it tells of itself. */
  Node node() {
    return Node.newBuilder()
        .setNodeId(id)
        .setRole(Role.ROLE_TIER)
        .setTarget("tier" + index + ":1")
        .setBytesMax(pages.bytesMax())
        .setInstance(instance)
        .build();
  }

  /** It is gone with all that it had. */
  void lose() {
    up = false;
    leases = new LeaseBook();
  }

  /** It is back, empty. */
  void comeBack(TierPages fresh) {
    up = true;
    instance++;
    pages = fresh;
    heard = 0;
    snapshotDue = true;
  }

  private void requireUp() {
    if (!up) {
      throw new KvtierException(Code.UNAVAILABLE, id + " does not answer");
    }
  }

  PutResult put(PageKey key, int length) {
    requireUp();
    try {
      PutResult result = pages.put(key, length);
      audit.pages.stored(index, key);
      return result;
    } finally {
      hear(key);
      audit.require(
          Rule.WITHIN_BOUND,
          pages.bytesUsed() <= pages.bytesMax(),
          () -> "%s holds %d of %d bytes".formatted(id, pages.bytesUsed(), pages.bytesMax()));
    }
  }

  boolean read(PageKey key) {
    requireUp();
    boolean served = pages.read(key);
    audit.read(this, key, served);
    return served;
  }

  boolean contains(PageKey key) {
    requireUp();
    boolean there = pages.contains(key);
    audit.read(this, key, there);
    return there;
  }

  void deleteAll(List<PageKey> keys) {
    requireUp();
    for (PageKey key : keys) {
      if (pages.contains(key)) {
        boolean _ = pages.delete(key);
      }
    }
    hear(null);
  }

  PageCache.Lease lease(String owner, long epoch, long leaseId, long ttlNs, List<PageKey> keys) {
    requireUp();
    PageCache.Lease lease = pages.lease(owner, epoch, leaseId, ttlNs, keys);
    leases.leased(owner, keys, time.nowNs() + ttlNs, time.nowNs());
    hear(null);
    return lease;
  }

  void release(String owner, long epoch, Collection<PageKey> keys) {
    requireUp();
    pages.release(owner, epoch, keys);
    leases.released(owner, keys);
    hear(null);
  }

  void expire() {
    if (up) {
      pages.expire();
      hear(null);
    }
  }

  /** Enters what the tier tells since last; the page being put is entered by its answer. */
  private void hear(@org.jspecify.annotations.Nullable PageKey put) {
    if (pages.lastEvent() == heard) {
      return;
    }
    for (PageEvent event : pages.eventsAfter(heard)) {
      heard = event.sequence();
      if (!event.stored()) {
        audit.removed(this, event.key(), put != null);
      } else if (!event.key().equals(put)) {
        audit.broken(Rule.TRUE_PRESENCE, id + " told of a page that nobody put: " + event.key());
      }
    }
  }

  /** Tells the coordinator what has changed since last, or all anew after a start. */
  void tell(PrefixDirectory directory, boolean member) {
    if (!member) {
      // Nobody watches a node that is no member, and what it has told is forgotten.
      directory.forget(id);
      snapshotDue = true;
      return;
    }
    if (!up) {
      return;
    }
    if (snapshotDue) {
      snapshotDue = false;
      directory.forget(id);
      pages.keys().forEachRemaining(key -> directory.stored(id, key));
      watched = heard;
      return;
    }
    for (PageEvent event : pages.eventsAfter(watched)) {
      watched = event.sequence();
      if (event.stored()) {
        directory.stored(id, event.key());
      } else {
        directory.removed(id, event.key());
      }
    }
  }
}
