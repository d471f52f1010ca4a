package io.kvtier.cachetier.cache;

import static io.kvtier.KvtierException.requireInRange;

import io.kvtier.KvtierException;
import io.kvtier.TenantName;
import io.kvtier.cachetier.PageReader;
import io.kvtier.cachetier.PageStore;
import io.kvtier.cachetier.PutResult;
import io.kvtier.cachetier.lease.LeaseTable;
import io.kvtier.cachetier.watch.EventLog;
import io.kvtier.page.PageKey;
import java.time.Duration;
import java.util.Arrays;
import java.util.Collection;
import java.util.Comparator;
import java.util.EnumMap;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentSkipListSet;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.atomic.LongAdder;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.LongSupplier;
import java.util.function.ObjIntConsumer;
import java.util.function.Supplier;
import org.agrona.DirectBuffer;
import org.jspecify.annotations.Nullable;

/**
 * A store that makes room. A put that does not fit evicts the coldest unleased pages first: its
 * tenant's own where the tenant's quota is reached, otherwise those of the tenant that has the most
 * bytes to give. It is refused only if everything that could go is leased, or if nothing is to be
 * evicted. What is stored never exceeds the store's bound; a page is charged to the tenant that
 * stored it first.
 *
 * <p>The index of pages is on the heap, about 400 bytes a page, and is rebuilt from the store's
 * keys when the cache is made. Leases, tenants and ages are not kept over a restart: pages found
 * then are charged to the default tenant and their age begins anew.
 *
 * <p>Locks, in the order they are taken: the key's stripe, under which a key's page is stored or
 * removed, its event written and its place in the order decided; then the tables' own. No thread
 * holds one stripe while it waits for another, nor while it waits for room.
 */
public final class PageCache implements PageStore {
  private static final int STRIPES = 256;

  private final PageStore store;
  private final CacheLimits limits;
  private final LeaseTable leases;
  private final EventLog events;
  private final RemovalListener listener;
  private final LongSupplier clockNs;
  private final long ttlNs;
  private final Ledger ledger;
  private final ReentrantLock[] stripes = new ReentrantLock[STRIPES];
  private final Map<PageKey, CachedPage> index = new ConcurrentHashMap<>();
  private final TenantTable tenants;
  private final Map<Removal, LongAdder> removed = new EnumMap<>(Removal.class);

  /** Unleased pages, oldest first; empty without a time to live. */
  private final ConcurrentSkipListSet<CachedPage> byAge =
      new ConcurrentSkipListSet<>(
          Comparator.<CachedPage>comparingLong(page -> page.storedNs)
              .thenComparingLong(page -> page.order));

  private final AtomicLong stored = new AtomicLong();
  private volatile boolean closed;

  /**
   * Takes over a store and all its pages; evicts what is beyond its bound.
   *
   * @param store owned by the cache from now on, and used by nobody else
   * @param clockNs nanoseconds of a clock that never runs back
   */
  public PageCache(
      PageStore store,
      CacheLimits limits,
      LeaseTable leases,
      EventLog events,
      RemovalListener listener,
      LongSupplier clockNs) {
    this.store = store;
    this.limits = limits;
    this.leases = leases;
    this.events = events;
    this.listener = listener;
    this.clockNs = clockNs;
    this.ttlNs = limits.ttl().map(Duration::toNanos).orElse(0L);
    this.ledger = new Ledger(store.bytesMax());
    this.tenants = new TenantTable(limits, ledger);
    Arrays.setAll(stripes, i -> new ReentrantLock());
    for (Removal reason : Removal.values()) {
      removed.put(reason, new LongAdder());
    }
    // Never left: it stays whether it has pages or not.
    Tenant owner = tenants.enter(TenantName.DEFAULT);
    long now = clockNs.getAsLong();
    store.forEach((key, length) -> {
      ledger.take(owner, length);
      add(key, length, owner, now);
    });
    // A cache that keeps everything takes nothing new until it is below its bound.
    long beyond = limits.evicts() ? ledger.used() - ledger.bytesMax() : 0;
    for (long excess = beyond; excess > 0; ) {
      owner.order.coldest(excess).forEach(page -> evict(page, Removal.SIZE));
      excess = ledger.used() - ledger.bytesMax();
    }
  }

  /** The leases on this cache's pages. */
  public LeaseTable leases() {
    return leases;
  }

  /** What has been stored and removed since the cache was made. */
  public EventLog events() {
    return events;
  }

  /** Pages removed so far, by reason. */
  public long removed(Removal reason) {
    return countOf(reason).sum();
  }

  private LongAdder countOf(Removal reason) {
    return Objects.requireNonNull(removed.get(reason));
  }

  private ReentrantLock stripeOf(PageKey key) {
    int hash = key.hashCode();
    return stripes[(hash ^ hash >>> 16) & STRIPES - 1];
  }

  /** Stores a page of the default tenant. */
  @Override
  public PutResult put(PageKey key, DirectBuffer page, int offset, int length) {
    return put(TenantName.DEFAULT, key, page, offset, length);
  }

  /**
   * Stores a copy of a page, charged to a tenant; evicts others first if need be.
   *
   * @throws KvtierException EXHAUSTED if everything that could make room is leased; INVALID if the
   *     length is out of its bounds or the tenant's name is none. Nothing is stored then
   */
  public PutResult put(String tenantName, PageKey key, DirectBuffer page, int offset, int length) {
    requireInRange("page length", length, 1, PAGE_BYTES_MAX);
    page.boundsCheck(offset, length);
    Tenant tenant = tenants.enter(tenantName);
    try {
      return put(tenant, key, page, offset, length);
    } finally {
      tenants.leave(tenant);
    }
  }

  private PutResult put(Tenant tenant, PageKey key, DirectBuffer page, int offset, int length) {
    if (store.contains(key)) {
      touch(key);
      return PutResult.EXISTED;
    }
    makeRoom(tenant, length);
    boolean kept = false;
    ReentrantLock stripe = stripeOf(key);
    stripe.lock();
    try {
      PutResult result = store.put(key, page, offset, length);
      if (result == PutResult.STORED) {
        add(key, length, tenant, clockNs.getAsLong());
        events.append(key, true);
        kept = true;
      }
      return result;
    } finally {
      stripe.unlock();
      if (!kept) {
        ledger.giveBack(tenant, length);
      }
      ledger.ended();
    }
  }

  private void add(PageKey key, int length, Tenant tenant, long nowNs) {
    CachedPage page = new CachedPage(key, length, tenant, nowNs, stored.incrementAndGet());
    index.put(key, page);
    place(page);
  }

  /**
   * Puts a page where its leases say it belongs. The stripe is held, or nobody else is here yet.
   */
  private void place(CachedPage page) {
    if (leases.isPinned(page.key)) {
      page.tenant.order.remove(page);
      byAge.remove(page);
    } else {
      page.tenant.order.add(page);
      if (ttlNs > 0) {
        byAge.add(page);
      }
    }
    // Either way: who has looked for pages to evict meanwhile may have missed this one, or one that
    // was free while this was leased.
    ledger.changed();
  }

  /** Reserves bytes, evicting until they are there. */
  private void makeRoom(Tenant tenant, int length) {
    if (length > tenant.bytesMax || length > ledger.bytesMax()) {
      throw CacheFull.never(ledger, tenant, length);
    }
    while (true) {
      long seen = ledger.changes();
      Ledger.Answer answer = ledger.reserve(tenant, length);
      if (answer == Ledger.Answer.RESERVED) {
        return;
      }
      boolean ofTenant = answer == Ledger.Answer.TENANT_FULL;
      long lacking = ofTenant ? ledger.tenantLacks(tenant, length) : ledger.tierLacks(length);
      if (lacking <= 0) {
        continue;
      }
      List<CachedPage> victims = limits.evicts() ? coldest(tenant, ofTenant, lacking) : List.of();
      if (!victims.isEmpty()) {
        Removal reason = ofTenant ? Removal.QUOTA : Removal.SIZE;
        victims.forEach(page -> evict(page, reason));
      } else if (!letGo(() -> leases.expire(clockNs.getAsLong())) && !ledger.awaitChange(seen)) {
        throw ofTenant
            ? CacheFull.tenant(ledger, tenant, limits.evicts(), length)
            : CacheFull.tier(ledger, limits.evicts(), length);
      }
    }
  }

  private List<CachedPage> coldest(Tenant tenant, boolean ofTenant, long lacking) {
    return ofTenant ? tenant.order.coldest(lacking) : tenants.coldest(tenant, lacking);
  }

  /** Removes a page unless it is leased or has gone already. */
  private void evict(CachedPage page, Removal reason) {
    ReentrantLock stripe = stripeOf(page.key);
    stripe.lock();
    try {
      if (index.get(page.key) != page) {
        return;
      }
      if (leases.isPinned(page.key)) {
        place(page);
        return;
      }
      ledger.begun();
      try {
        store.delete(page.key);
        drop(page, reason);
      } finally {
        ledger.ended();
      }
    } finally {
      stripe.unlock();
    }
  }

  /** Forgets a page that the store has removed. The stripe is held. */
  private void drop(CachedPage page, Removal reason) {
    index.remove(page.key);
    page.tenant.order.remove(page);
    byAge.remove(page);
    ledger.giveBack(page.tenant, page.length);
    tenants.forgetIfEmpty(page.tenant);
    events.append(page.key, false);
    countOf(reason).increment();
    listener.removed(reason, clockNs.getAsLong() - page.storedNs, page.length);
  }

  /** Reads a page in place, which also keeps it from the cold end of the order. */
  @Override
  public <R> @Nullable R read(PageKey key, PageReader<R> reader) {
    R result = store.read(key, reader);
    if (result != null) {
      touch(key);
    }
    return result;
  }

  /** Notes that a key's page, if there is one, has been read elsewhere. */
  public void touch(PageKey key) {
    CachedPage page = index.get(key);
    if (page == null) {
      return;
    }
    if (page.read) {
      page.tenant.order.touch(key);
    } else {
      firstRead(page);
    }
  }

  /** Moves a page to the segment of those that were read. */
  private void firstRead(CachedPage page) {
    ReentrantLock stripe = stripeOf(page.key);
    stripe.lock();
    try {
      if (index.get(page.key) == page && !page.read) {
        ledger.begun();
        page.tenant.order.remove(page);
        page.read = true;
        place(page);
        ledger.ended();
      }
    } finally {
      stripe.unlock();
    }
  }

  /** As {@link #read}, without a trace in the order. */
  <R> @Nullable R peek(PageKey key, PageReader<R> reader) {
    return store.read(key, reader);
  }

  @Override
  public boolean contains(PageKey key) {
    // The index has what the store has and is asked far sooner; a closed store must refuse.
    return closed ? store.contains(key) : index.containsKey(key);
  }

  /** Removes a page that nobody has leased; false if there was none, or it is leased and stays. */
  @Override
  public boolean delete(PageKey key) {
    ReentrantLock stripe = stripeOf(key);
    stripe.lock();
    try {
      return !leases.isPinned(key) && remove(key, (page, at, length) -> true, Removal.ASKED);
    } finally {
      stripe.unlock();
    }
  }

  /**
   * Removes a page, leased or not, that the condition finds unsound: a lease holds what can be
   * served.
   */
  @Override
  public boolean deleteIf(PageKey key, PageReader<Boolean> unsound) {
    ReentrantLock stripe = stripeOf(key);
    stripe.lock();
    try {
      return remove(key, unsound, Removal.CORRUPT);
    } finally {
      stripe.unlock();
    }
  }

  private boolean remove(PageKey key, PageReader<Boolean> condition, Removal reason) {
    CachedPage page = index.get(key);
    if (page == null) {
      return false;
    }
    ledger.begun();
    try {
      if (!store.deleteIf(key, condition)) {
        return false;
      }
      drop(page, reason);
      return true;
    } finally {
      ledger.ended();
    }
  }

  /**
   * A lease and what it covers.
   *
   * @param id names the lease for its life
   * @param expiresInNs time that it runs unless renewed
   * @param stored for each key asked, whether its page is there; if so, it stays
   */
  @SuppressWarnings("ArrayRecordComponent")
  public record Lease(long id, long expiresInNs, boolean[] stored) {}

  /**
   * Begins or renews an owner's lease and pins keys; arguments and refusals as {@link
   * LeaseTable#acquire} has them. A key whose page is not there yet is pinned as well: the page
   * will be, from its put on.
   */
  public Lease lease(String owner, long epoch, long id, long ttlNs, List<PageKey> keys) {
    long now = clockNs.getAsLong();
    // By itself: a call that is refused must not swallow what ended leases let go.
    letGo(() -> leases.expire(now));
    LeaseTable.Grant grant = leases.acquire(owner, epoch, id, ttlNs, keys, now);
    letGo(grant::freed);
    boolean[] there = new boolean[keys.size()];
    for (int i = 0; i < there.length; i++) {
      there[i] = placed(keys.get(i));
    }
    return new Lease(grant.id(), grant.deadlineNs() - now, there);
  }

  /** Lets keys of an owner's lease go, or without keys all; as {@link LeaseTable#release}. */
  public void release(String owner, long epoch, Collection<PageKey> keys) {
    long now = clockNs.getAsLong();
    letGo(() -> leases.expire(now));
    letGo(() -> leases.release(owner, epoch, keys, now));
  }

  /**
   * Has leases let keys go and places their pages anew. Under way from before the one until after
   * the other: in between the pages are neither leased nor to be found by who makes room.
   */
  private boolean letGo(Supplier<List<PageKey>> ending) {
    boolean some = false;
    ledger.begun();
    try {
      List<PageKey> freed = ending.get();
      some = !freed.isEmpty();
      freed.forEach(this::placed);
      return some;
    } finally {
      if (some) {
        ledger.ended();
      } else {
        ledger.endedInVain();
      }
    }
  }

  /** Places a key's page anew; false if there is none. */
  private boolean placed(PageKey key) {
    ReentrantLock stripe = stripeOf(key);
    stripe.lock();
    try {
      CachedPage page = index.get(key);
      if (page != null) {
        place(page);
      }
      return page != null;
    } finally {
      stripe.unlock();
    }
  }

  /** Ends leases and removes pages whose time is over. To be called now and then. */
  public void expire() {
    long now = clockNs.getAsLong();
    letGo(() -> leases.expire(now));
    for (CachedPage page : byAge) {
      if (now - page.storedNs < ttlNs) {
        return;
      }
      evict(page, Removal.TTL);
    }
  }

  /** Pins that should have ended; see {@link LeaseTable#leaked}. */
  public long leakedLeases(long graceNs) {
    return leases.leaked(clockNs.getAsLong() - graceNs);
  }

  /** The keys of all pages that are there from the call until the end of the iteration. */
  public Iterator<PageKey> keys() {
    return index.keySet().iterator();
  }

  @Override
  public void forEach(ObjIntConsumer<PageKey> visitor) {
    index.forEach((key, page) -> visitor.accept(key, page.length));
  }

  @Override
  public long pages() {
    return store.pages();
  }

  /** Pages that may be evicted, as the order counts them. */
  long evictable() {
    return tenants.evictable();
  }

  /** Bytes that a tenant's pages have. */
  public long bytesUsed(String tenant) {
    return tenants.bytesUsed(tenant);
  }

  @Override
  public long bytesUsed() {
    return store.bytesUsed();
  }

  @Override
  public long bytesMax() {
    return store.bytesMax();
  }

  @Override
  public void close() {
    closed = true;
    store.close();
  }
}
