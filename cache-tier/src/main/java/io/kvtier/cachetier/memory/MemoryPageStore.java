package io.kvtier.cachetier.memory;

import static io.kvtier.KvtierException.requireInRange;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.cachetier.ByteBudget;
import io.kvtier.cachetier.PageReader;
import io.kvtier.cachetier.PageStore;
import io.kvtier.cachetier.PutResult;
import io.kvtier.page.PageKey;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.atomic.LongAdder;
import java.util.concurrent.locks.Lock;
import java.util.concurrent.locks.ReentrantReadWriteLock;
import java.util.function.ObjIntConsumer;
import org.agrona.DirectBuffer;
import org.agrona.concurrent.UnsafeBuffer;
import org.jspecify.annotations.Nullable;

/**
 * Pages in off-heap memory, each a block of its own, aligned to 64 bytes. Nothing survives {@link
 * #close} or the process.
 *
 * <p>Keys are spread over stripes. A page is read under its stripe's read lock and stored and freed
 * under its write lock, so no block is freed while it is read.
 */
public final class MemoryPageStore implements PageStore {
  private static final int STRIPES = 256;

  private final Stripe[] stripes = new Stripe[STRIPES];
  private final ByteBudget budget;
  private final LongAdder pages = new LongAdder();

  /** A block of native memory, the store's own until its key leaves the stripe. */
  private record Block(long address, int length) {}

  private static final class Stripe {
    final ReentrantReadWriteLock lock = new ReentrantReadWriteLock();
    final Map<PageKey, Block> blocks = new HashMap<>();
    boolean closed;

    /** Takes a lock of an open store; the caller releases it. */
    void enter(Lock side) {
      side.lock();
      if (closed) {
        side.unlock();
        throw new KvtierException(Code.UNAVAILABLE, "the page store is closed");
      }
    }
  }

  /** Opens an empty store; memory is taken as pages come. */
  public MemoryPageStore(long bytesMax) {
    this.budget = new ByteBudget(bytesMax);
    Arrays.setAll(stripes, i -> new Stripe());
  }

  private Stripe stripeOf(PageKey key) {
    int hash = key.hashCode();
    return stripes[(hash ^ hash >>> 16) & STRIPES - 1];
  }

  @Override
  public PutResult put(PageKey key, DirectBuffer page, int offset, int length) {
    requireInRange("page length", length, 1, PAGE_BYTES_MAX);
    page.boundsCheck(offset, length);
    Stripe stripe = stripeOf(key);
    Lock lock = stripe.lock.writeLock();
    stripe.enter(lock);
    try {
      if (stripe.blocks.containsKey(key)) {
        return PutResult.EXISTED;
      }
      stripe.blocks.put(key, store(page, offset, length));
      pages.increment();
      return PutResult.STORED;
    } finally {
      lock.unlock();
    }
  }

  private Block store(DirectBuffer page, int offset, int length) {
    if (!budget.tryReserve(length)) {
      throw new KvtierException(
          Code.EXHAUSTED,
          "tier is full: %d of %d bytes; a page of %d does not fit"
              .formatted(budget.used(), budget.max(), length));
    }
    long address = NativeMemory.allocate(length);
    if (address == 0) {
      budget.giveBack(length);
      throw new KvtierException(
          Code.EXHAUSTED,
          "the system has no memory for a page of %d bytes; the tier holds %d of at most %d: lower"
                  .formatted(length, budget.used(), budget.max())
              + " its bound");
    }
    page.getBytes(offset, new UnsafeBuffer(address, length), 0, length);
    return new Block(address, length);
  }

  @Override
  public <R> @Nullable R read(PageKey key, PageReader<R> reader) {
    Stripe stripe = stripeOf(key);
    Lock lock = stripe.lock.readLock();
    stripe.enter(lock);
    try {
      Block block = stripe.blocks.get(key);
      return block == null ? null : look(block, reader);
    } finally {
      lock.unlock();
    }
  }

  /**
   * The window is closed after the call, so that a reader that kept it fails instead of reading
   * what is there by then.
   */
  private static <R> R look(Block block, PageReader<R> reader) {
    UnsafeBuffer window = new UnsafeBuffer(block.address, block.length);
    try {
      return reader.read(window, 0, block.length);
    } finally {
      window.wrap(0, 0);
    }
  }

  @Override
  public boolean contains(PageKey key) {
    Stripe stripe = stripeOf(key);
    Lock lock = stripe.lock.readLock();
    stripe.enter(lock);
    try {
      return stripe.blocks.containsKey(key);
    } finally {
      lock.unlock();
    }
  }

  @Override
  public boolean delete(PageKey key) {
    return deleteIf(key, (page, offset, length) -> true);
  }

  @Override
  public boolean deleteIf(PageKey key, PageReader<Boolean> condition) {
    Stripe stripe = stripeOf(key);
    Lock lock = stripe.lock.writeLock();
    stripe.enter(lock);
    try {
      Block block = stripe.blocks.get(key);
      if (block == null || !look(block, condition)) {
        return false;
      }
      stripe.blocks.remove(key);
      NativeMemory.free(block.address);
      budget.giveBack(block.length);
      pages.decrement();
      return true;
    } finally {
      lock.unlock();
    }
  }

  @Override
  public void forEach(ObjIntConsumer<PageKey> visitor) {
    for (Stripe stripe : stripes) {
      Lock lock = stripe.lock.readLock();
      stripe.enter(lock);
      try {
        stripe.blocks.forEach((key, block) -> visitor.accept(key, block.length));
      } finally {
        lock.unlock();
      }
    }
  }

  /** 0 once closed. */
  @Override
  public long pages() {
    return pages.sum();
  }

  @Override
  public long bytesUsed() {
    return budget.used();
  }

  @Override
  public long bytesMax() {
    return budget.max();
  }

  @Override
  public void close() {
    for (Stripe stripe : stripes) {
      stripe.lock.writeLock().lock();
      try {
        stripe.closed = true;
        for (Block block : stripe.blocks.values()) {
          NativeMemory.free(block.address);
          budget.giveBack(block.length);
          pages.decrement();
        }
        stripe.blocks.clear();
      } finally {
        stripe.lock.writeLock().unlock();
      }
    }
  }
}
