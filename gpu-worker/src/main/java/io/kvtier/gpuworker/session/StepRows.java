package io.kvtier.gpuworker.session;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.gpuworker.device.CodesTaker;
import io.kvtier.gpuworker.device.DeviceMemory;
import io.kvtier.gpuworker.device.DeviceSlot;
import io.kvtier.page.PageKey;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Executor;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/**
 * Gives a query the rows it needs: those in the arena at once, the others in as few fetches as the
 * arena and the staging memory have room for. While a fetch is under way, what needs no more is
 * attended to; last comes what a prefetch is bringing. One query; the caller holds the layer's
 * lock.
 */
final class StepRows {
  private final SessionLayer target;
  private final CodesTaker taker;
  private final RowArena arena;
  private final RowBatch batch = new RowBatch();
  private final List<PageKey> keys;
  private final RowFetcher fetcher;
  private final DeviceMemory memory;
  private final Executor executor;
  private final int stagingBytes;
  private final long timeoutNs;
  private final List<DeviceSlot> staging = new ArrayList<>();

  /** By row of the batch: its row in the arena. */
  private int[] admitted = {};

  /** Rows of the batch that have a place. */
  private int placed;

  private boolean prefetchWaitedFor;
  private int coming;
  private long unhiddenNs;
  private long stagedBytes;
  private int hits;
  private int late;
  private int fetched;

  /**
   * Rows for one query.
   *
   * @param keys of all of the layer's pages
   * @param executor runs fetches
   * @param stagingBytes most bytes of rows that are held beside the arena, a chunk or more
   * @param timeoutNs longest wait for a prefetch under way, in nanoseconds
   */
  StepRows(
      SessionLayer target,
      CodesTaker taker,
      List<PageKey> keys,
      RowFetcher fetcher,
      DeviceMemory memory,
      Executor executor,
      int stagingBytes,
      long timeoutNs) {
    this.target = target;
    this.taker = taker;
    this.arena = target.rows;
    this.keys = keys;
    this.fetcher = fetcher;
    this.memory = memory;
    this.executor = executor;
    this.stagingBytes = stagingBytes;
    this.timeoutNs = timeoutNs;
  }

  /**
   * Gives out every row.
   *
   * @throws KvtierException if a fetch is refused
   */
  void give() {
    arena.fit();
    try {
      boolean first = true;
      while (resolve(first)) {
        round();
        first = false;
      }
      taker.attendRows();
    } finally {
      arena.endStep();
    }
  }

  /** Gives out what the arena has and lists what it has not; whether there is any such. */
  private boolean resolve(boolean first) {
    batch.clear();
    coming = 0;
    for (int head = 0; head < target.policies.size(); head++) {
      if (taker.rowSections(head) == 0) {
        continue;
      }
      int count = taker.chosenCount(head);
      for (int i = taker.attendedCount(head); i < count; i++) {
        int position = taker.chosenPosition(head, i);
        int row = arena.find(RowArena.key(head, position));
        if (row == RowArena.ABSENT) {
          batch.add(position, head, i);
        } else if (!arena.isPending(row)) {
          give(head, i, row, first);
        } else if (target.prefetch != null && !prefetchWaitedFor) {
          arena.keep(row);
          coming++;
        } else {
          batch.add(position, head, i);
        }
      }
    }
    batch.sort();
    return batch.count() + coming > 0;
  }

  private void give(int head, int index, int row, boolean hit) {
    taker.giveRow(head, index, arena.chunk(row), arena.offset(row));
    if (hit) {
      arena.use(row);
      hits++;
    } else {
      arena.keep(row);
    }
  }

  /** One fetch of what there is room for, and whatever can be done beside it. */
  private void round() {
    boolean complete = false;
    try {
      findPlaces();
      CompletableFuture<Void> fetch = startFetch();
      try {
        taker.attendResident();
        taker.attendRows();
        if (coming > 0) {
          awaitPrefetch();
        }
      } finally {
        // Whatever happens: the fetch writes to memory that is ours.
        await(fetch);
      }
      complete = true;
      fetched += placed;
      for (int i = 0; i < placed; i++) {
        if (admitted[i] != RowArena.ABSENT) {
          arena.filled(admitted[i]);
        }
        taker.giveRow(batch.kvHead(i), batch.number(i), batch.slot(i), batch.offset(i));
      }
      taker.attendRows();
    } finally {
      for (int i = 0; !complete && i < placed; i++) {
        if (admitted[i] != RowArena.ABSENT) {
          arena.discard(admitted[i]);
        }
      }
      // What could not be attended to yet and lies in the staging memory has to come again.
      taker.forgetRows();
      staging.forEach(DeviceSlot::release);
      staging.clear();
    }
  }

  /**
   * Finds places for rows: in the arena, else in staging memory, whole pages of a head at a time
   * there, since parts of one cannot be attended to. Rows without a place are dropped from the
   * batch.
   */
  private void findPlaces() {
    placed = 0;
    admitted = new int[batch.count()];
    int room = Math.max(1, stagingBytes / chunkBytes()) * RowArena.CHUNK_ROWS;
    int staged = 0;
    int i = 0;
    while (i < batch.count()) {
      int to = i + 1;
      while (to < batch.count()
          && batch.page(to) == batch.page(i)
          && batch.kvHead(to) == batch.kvHead(i)) {
        to++;
      }
      if (staged + (to - i) > room) {
        // Later rows cannot be attended to before these.
        break;
      }
      for (; i < to; i++) {
        int row = admit(i);
        if (row == RowArena.ABSENT) {
          int offset = staged % RowArena.CHUNK_ROWS * arena.rowBytes();
          batch.place(i, stagingChunk(staged++), offset);
        } else {
          batch.place(i, arena.chunk(row), arena.offset(row));
        }
        admitted[placed++] = row;
      }
    }
    batch.truncate(placed);
    stagedBytes = Math.max(stagedBytes, (long) staging.size() * chunkBytes());
  }

  private int chunkBytes() {
    return RowArena.CHUNK_ROWS * arena.rowBytes();
  }

  private int admit(int index) {
    int key = RowArena.key(batch.kvHead(index), batch.position(index));
    // A row that a prefetch has been too slow to bring is there already, and still its own.
    return arena.find(key) == RowArena.ABSENT ? arena.admit(key) : RowArena.ABSENT;
  }

  private DeviceSlot stagingChunk(int row) {
    if (row / RowArena.CHUNK_ROWS == staging.size()) {
      staging.add(memory.allocate(chunkBytes()));
    }
    return staging.getLast();
  }

  private CompletableFuture<Void> startFetch() {
    if (batch.count() == 0) {
      return CompletableFuture.completedFuture(null);
    }
    return CompletableFuture.runAsync(
        () -> fetcher.fetch(batch, keys, taker::rowSections), executor);
  }

  private void await(CompletableFuture<Void> fetch) {
    long startNs = System.nanoTime();
    try {
      fetch.join();
    } catch (CompletionException e) {
      throw e.getCause() instanceof RuntimeException refused ? refused : e;
    } finally {
      unhiddenNs += System.nanoTime() - startNs;
    }
  }

  /** Waits for a prefetch once; what it fails to bring is fetched like anything else. */
  private void awaitPrefetch() {
    Prefetch prefetch = target.prefetch;
    prefetchWaitedFor = true;
    if (prefetch == null) {
      return;
    }
    long startNs = System.nanoTime();
    try {
      prefetch.done.get(timeoutNs, TimeUnit.NANOSECONDS);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new KvtierException(Code.UNAVAILABLE, "interrupted while rows are being fetched", e);
    } catch (TimeoutException e) {
      return;
    } catch (ExecutionException e) {
      // The step fetches for itself and tells if that fails too.
    } finally {
      unhiddenNs += System.nanoTime() - startNs;
    }
    prefetch.settle(arena);
    target.prefetch = null;
    if (!prefetch.done.isCompletedExceptionally()) {
      hits += coming;
      late += coming;
      giveWhatCame();
    }
  }

  private void giveWhatCame() {
    for (int head = 0; head < target.policies.size(); head++) {
      int count = taker.rowSections(head) == 0 ? 0 : taker.chosenCount(head);
      for (int i = taker.attendedCount(head); i < count; i++) {
        int row = arena.find(RowArena.key(head, taker.chosenPosition(head, i)));
        if (row != RowArena.ABSENT && !arena.isPending(row)) {
          give(head, i, row, false);
        }
      }
    }
  }

  /** Rows found in the arena, or on their way there. */
  int hits() {
    return hits;
  }

  /** Of the hits, rows that a prefetch was still bringing. */
  int late() {
    return late;
  }

  int fetched() {
    return fetched;
  }

  /** Nanoseconds of waiting. */
  long unhiddenNs() {
    return unhiddenNs;
  }

  /** Most device bytes that were held beside the arena. */
  long stagedBytes() {
    return stagedBytes;
  }
}
