package io.kvtier.gpuworker.session;

import com.google.protobuf.ByteString;
import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.client.PageTransport;
import io.kvtier.client.PageTransport.KeyedPage;
import io.kvtier.page.PageKey;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Executor;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;
import org.jspecify.annotations.Nullable;

/**
 * Stores a session's pages in the tier behind its back, in order, at most so many bytes at a time:
 * a producer that runs ahead waits. A page stays readable here until the tier has acknowledged it.
 * When a put fails, nothing is lost and nothing is dropped. Where a tier does not answer, or too
 * few do, the put is tried again by itself, and callers hear of it only when they cannot wait any
 * longer for room, or for all to be stored. Of any other refusal the next caller is told, and has
 * the put tried again. Safe for any number of threads.
 */
final class WriteBehind {
  private static final int BATCH_PAGES = 64;
  private static final long PAUSE_NS_MIN = TimeUnit.MILLISECONDS.toNanos(20);
  private static final long PAUSE_NS_MAX = TimeUnit.MILLISECONDS.toNanos(250);

  private static final Room NO_ROOM = () -> {};

  /**
   * @param counted whether it is one of the layer's pages in order, rather than something beside
   */
  private record Pending(int layer, KeyedPage page, boolean counted) {}

  /**
   * What a call may add, of all that may wait in the worker. Its pages count beside it as they
   * come, so that others wait a little longer than they have to, and never too short.
   */
  interface Room extends AutoCloseable {
    /** The call adds no more. */
    @Override
    void close();
  }

  private final PageTransport tier;
  private final String tenant;
  private final SharedPages shared;
  private final Executor executor;
  private final long pendingBytesMax;
  private final PendingBytes.Share share;
  private final long timeoutNs;
  private final ReentrantLock lock = new ReentrantLock();
  private final Condition changed = lock.newCondition();
  private final Map<PageKey, Pending> pending = new LinkedHashMap<>();
  private final int[] durablePages;

  /** {@code [layers]}: pages beside the counted ones that wait. */
  private final int[] asides;

  /** Whether another worker may have written pages of these keys. */
  private volatile boolean replacing;

  private long pendingBytes;
  private boolean draining;
  private boolean closed;

  /** Of the last put; none once one has succeeded. */
  private @Nullable KvtierException failure;

  /** Until a put that failed is tried again, after the next failure in a row. */
  private long pauseNs = PAUSE_NS_MIN;

  /**
   * A queue with nothing in it.
   *
   * @param tenant that the pages are charged to
   * @param shared has the pages that others use too held before they are stored
   * @param durablePages {@code [layers]}: pages of each layer that the tier has already; taken over
   * @param pendingBytesMax bytes that may wait here
   * @param share of what may wait in the worker
   * @param timeoutNs longest wait for the tier, in nanoseconds
   */
  WriteBehind(
      PageTransport tier,
      String tenant,
      SharedPages shared,
      Executor executor,
      int[] durablePages,
      long pendingBytesMax,
      PendingBytes.Share share,
      long timeoutNs) {
    this.tier = tier;
    this.tenant = tenant;
    this.shared = shared;
    this.executor = executor;
    this.durablePages = durablePages;
    this.asides = new int[durablePages.length];
    this.pendingBytesMax = pendingBytesMax;
    this.share = share;
    this.timeoutNs = timeoutNs;
  }

  /**
   * Tells of a put that was refused since the last call, and has it tried again.
   *
   * @throws KvtierException the refusal
   */
  private void requireHealthy() {
    KvtierException failed = failure;
    if (failed != null && !passes(failed)) {
      failure = null;
      startDrain();
      throw told(failed);
    }
  }

  /** Whether what failed so may succeed a little later, whatever callers do. */
  private static boolean passes(KvtierException failed) {
    return failed.code() == Code.UNAVAILABLE || failed.code() == Code.DEADLINE;
  }

  private KvtierException told(KvtierException failed) {
    return new KvtierException(
        failed.code(),
        "%d pages wait to be stored: %s; send the call again"
            .formatted(pending.size(), failed.getMessage()),
        failed);
  }

  /**
   * Waits until some more pages may be pending, here and in the worker.
   *
   * @param bytes of those that are to come; they may be more than the bound if nothing is pending
   * @return to be closed once they have come, or will not
   * @throws KvtierException the failure of a put, or EXHAUSTED if the tier does not keep up
   */
  Room requireRoom(long bytes) {
    long deadlineNs = System.nanoTime() + timeoutNs;
    awaitRoomHere(bytes, deadlineNs);
    if (bytes == 0) {
      return NO_ROOM;
    }
    while (!share.take(bytes, Math.min(deadlineNs, System.nanoTime() + PAUSE_NS_MAX))) {
      lock.lock();
      try {
        requireHealthy();
        if (System.nanoTime() - deadlineNs >= 0) {
          throw late(share.refusal(bytes));
        }
      } finally {
        lock.unlock();
      }
    }
    return () -> share.give(bytes);
  }

  private void awaitRoomHere(long bytes, long deadlineNs) {
    lock.lock();
    try {
      requireHealthy();
      while (pendingBytes > 0 && pendingBytes + bytes > pendingBytesMax) {
        if (!await(deadlineNs)) {
          throw late(
              "%d bytes of pages wait for the tier, at most %d may; send the call again"
                  .formatted(pendingBytes, pendingBytesMax));
        }
        requireHealthy();
      }
    } finally {
      lock.unlock();
    }
  }

  /** What is told of room that there was not in time, and of the tier if it failed. */
  private KvtierException late(String why) {
    KvtierException failed = failure;
    return failed == null
        ? new KvtierException(Code.EXHAUSTED, why)
        : new KvtierException(failed.code(), why + ": " + failed.getMessage(), failed);
  }

  /** Takes a page; {@link #requireRoom} has made sure that there is room. */
  void enqueue(int layer, PageKey key, ByteString page) {
    enqueue(new Pending(layer, new KeyedPage(key, page, tenant), true));
  }

  /** Takes a page that is none of the layer's pages in order. */
  void enqueueAside(int layer, PageKey key, ByteString page) {
    enqueue(new Pending(layer, new KeyedPage(key, page, tenant), false));
  }

  /** Another worker may have written, or be writing, pages of the keys that are to come. */
  void replaceOthers() {
    replacing = true;
  }

  /** The tier has a layer's first pages already. */
  void setDurable(int layer, int pages) {
    lock.lock();
    try {
      durablePages[layer] = pages;
    } finally {
      lock.unlock();
    }
  }

  private void enqueue(Pending waiting) {
    PageKey key = waiting.page().key();
    ByteString page = waiting.page().page();
    lock.lock();
    try {
      Pending before = pending.put(key, waiting);
      if (before == null) {
        pendingBytes += page.size();
        share.add(page.size());
        asides[waiting.layer()] += waiting.counted() ? 0 : 1;
      }
      if (failure == null) {
        startDrain();
      }
    } finally {
      lock.unlock();
    }
  }

  /** A page that the tier has not acknowledged; null: it has. */
  @Nullable ByteString pending(PageKey key) {
    lock.lock();
    try {
      Pending waiting = pending.get(key);
      return waiting == null ? null : waiting.page().page();
    } finally {
      lock.unlock();
    }
  }

  /**
   * Waits until the tier has acknowledged everything.
   *
   * @throws KvtierException the failure of a put, or DEADLINE
   */
  void flush() {
    lock.lock();
    try {
      requireHealthy();
      long deadlineNs = System.nanoTime() + timeoutNs;
      while (!pending.isEmpty() && !closed) {
        if (!await(deadlineNs)) {
          throw failure != null
              ? told(failure)
              : new KvtierException(
                  Code.DEADLINE,
                  "the tier has not acknowledged %d pages within %d ms; send the call again"
                      .formatted(pending.size(), TimeUnit.NANOSECONDS.toMillis(timeoutNs)));
        }
        requireHealthy();
      }
    } finally {
      lock.unlock();
    }
  }

  /**
   * A layer's first pages that the tier has. None as long as a page beside them waits, such as the
   * sink rows: without those the layer could not be read back.
   */
  int durablePages(int layer) {
    lock.lock();
    try {
      return asides[layer] > 0 ? 0 : durablePages[layer];
    } finally {
      lock.unlock();
    }
  }

  /** Bytes of pages that wait to be stored. */
  long pendingBytes() {
    lock.lock();
    try {
      return pendingBytes;
    } finally {
      lock.unlock();
    }
  }

  /** Drops what is pending and starts no further put; waits for the one under way. */
  void close() {
    lock.lock();
    try {
      closed = true;
      changed.signalAll();
      long deadlineNs = System.nanoTime() + timeoutNs;
      while (draining && await(deadlineNs)) {}
      pending.clear();
      share.give(pendingBytes);
      pendingBytes = 0;
    } finally {
      lock.unlock();
    }
  }

  /** One wait of a caller's loop; false: the deadline has passed. */
  @SuppressWarnings("WaitNotInLoop")
  private boolean await(long deadlineNs) {
    long leftNs = deadlineNs - System.nanoTime();
    if (leftNs <= 0) {
      return false;
    }
    try {
      return changed.awaitNanos(leftNs) > 0;
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new KvtierException(Code.UNAVAILABLE, "interrupted while pages are being stored", e);
    }
  }

  private void startDrain() {
    if (!draining && !closed && !pending.isEmpty()) {
      draining = true;
      executor.execute(this::drain);
    }
  }

  private void drain() {
    while (true) {
      List<Pending> batch = nextBatch();
      if (batch.isEmpty()) {
        return;
      }
      try {
        shared.hold(batch.stream().map(waiting -> waiting.page().key()).toList());
        put(batch.stream().map(Pending::page).toList());
      } catch (KvtierException e) {
        stop(e);
        return;
      } catch (RuntimeException e) {
        stop(new KvtierException(Code.INTERNAL, "a page could not be stored: " + e, e));
        return;
      }
      acknowledge(batch);
    }
  }

  private void put(List<KeyedPage> pages) {
    if (replacing) {
      PagePuts.replacing(tier, pages);
    } else {
      tier.put(pages);
    }
  }

  private List<Pending> nextBatch() {
    lock.lock();
    try {
      List<Pending> batch = new ArrayList<>();
      if (!closed) {
        for (Pending waiting : pending.values()) {
          batch.add(waiting);
          if (batch.size() == BATCH_PAGES) {
            break;
          }
        }
      }
      if (batch.isEmpty()) {
        draining = false;
        changed.signalAll();
      }
      return batch;
    } finally {
      lock.unlock();
    }
  }

  private void acknowledge(List<Pending> batch) {
    lock.lock();
    try {
      for (Pending stored : batch) {
        // Gone already if closing did not wait any longer for this put.
        if (pending.remove(stored.page().key()) != null) {
          pendingBytes -= stored.page().page().size();
          share.give(stored.page().page().size());
        }
        durablePages[stored.layer()] += stored.counted() ? 1 : 0;
        asides[stored.layer()] -= stored.counted() ? 0 : 1;
      }
      failure = null;
      pauseNs = PAUSE_NS_MIN;
      changed.signalAll();
    } finally {
      lock.unlock();
    }
  }

  private void stop(KvtierException e) {
    lock.lock();
    try {
      failure = e;
      draining = false;
      if (passes(e)) {
        CompletableFuture.delayedExecutor(pauseNs, TimeUnit.NANOSECONDS, executor)
            .execute(this::drainAgain);
        pauseNs = Math.min(2 * pauseNs, PAUSE_NS_MAX);
      }
      changed.signalAll();
    } finally {
      lock.unlock();
    }
  }

  private void drainAgain() {
    lock.lock();
    try {
      startDrain();
    } finally {
      lock.unlock();
    }
  }
}
