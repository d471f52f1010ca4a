package io.kvtier.gpuworker.session;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.gpuworker.device.CodesTaker;
import io.kvtier.gpuworker.device.DeviceReserve;
import io.kvtier.page.PageKey;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Executor;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import org.agrona.collections.LongArrayList;

/**
 * Gives a query the rows it needs: those in the arena at once, the others in a fetch for each part
 * of the choice, and as few more as the arena and the staging memory have room for. While fetches
 * are under way, the next part is chosen, and what needs no more is attended to; last comes what a
 * prefetch is bringing. One query; the caller holds the layer's lock.
 */
final class StepRows {
  /** All heads, whatever their parts. */
  private static final int ALL = -1;

  private final SessionLayer target;
  private final CodesTaker taker;
  private final RowArena arena;
  private final List<PageKey> keys;
  private final RowFetcher fetcher;
  private final DeviceReserve memory;
  private final Executor executor;
  private final int stagingBytes;
  private final long timeoutNs;

  /** What is found in the arena now is a hit: this query has brought nothing there yet. */
  private boolean first = true;

  private boolean prefetchWaitedFor;

  /** Chosen tokens whose rows a prefetch is bringing: head in the upper half, index below. */
  private final LongArrayList coming = new LongArrayList();

  private long chooseNs;
  private long unhiddenNs;
  private long stagedBytes;
  private int hits;
  private int late;
  private int fetched;

  /** Rows that the arena had no place for. */
  private int unkept;

  /**
   * Rows for one query.
   *
   * @param keys of all of the layer's pages
   * @param memory for rows that are held beside the arena
   * @param executor runs fetches
   * @param stagingBytes most bytes of rows that are held beside the arena, a chunk or more
   * @param timeoutNs longest wait for a prefetch under way, in nanoseconds
   */
  StepRows(
      SessionLayer target,
      CodesTaker taker,
      List<PageKey> keys,
      RowFetcher fetcher,
      DeviceReserve memory,
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
   * Has the choice made part by part, and gives out every row.
   *
   * @throws KvtierException if a fetch is refused
   */
  void give() {
    arena.fit();
    int gone;
    try {
      List<RowRound> rounds = new ArrayList<>();
      give(rounds, () -> chooseAll(rounds));
      while (isLeft()) {
        first = false;
        coming.clear();
        List<RowRound> more = new ArrayList<>();
        give(
            more,
            () -> {
              start(more, ALL, stagingBytes);
              taker.attendResident();
            });
      }
    } finally {
      long most = arena.bytes();
      gone = arena.endStep();
      stagedBytes += most - arena.bytes();
    }
    target.last.note(taker, target.policies.size(), gone + unkept);
  }

  /**
   * Chooses part by part; a part's rows are looked for while the next one is chosen, the last
   * part's while resident tokens are attended to.
   */
  private void chooseAll(List<RowRound> rounds) {
    int parts = taker.parts();
    int bytes = stagingBytes / parts;
    Runnable beside = () -> {};
    for (int part = 0; part < parts; part++) {
      long startNs = System.nanoTime();
      taker.choosePart(part, beside);
      chooseNs += System.nanoTime() - startNs;
      int chosen = part;
      beside = () -> start(rounds, chosen, bytes);
    }
    taker.attendResident(beside);
  }

  private boolean isLeft() {
    for (int head = 0; head < target.policies.size(); head++) {
      if (taker.rowSections(head) != 0 && taker.attendedCount(head) < taker.chosenCount(head)) {
        return true;
      }
    }
    return false;
  }

  /** Gives out what the arena has of a part's heads and starts a fetch of what it has not. */
  private void start(List<RowRound> rounds, int part, int bytes) {
    RowRound round = new RowRound(arena, memory, bytes);
    rounds.add(round);
    for (int head = 0; head < target.policies.size(); head++) {
      if (taker.rowSections(head) == 0 || (part != ALL && taker.partOf(head) != part)) {
        continue;
      }
      start(round, head);
    }
    round.findPlaces(target.lookup);
    round.findRestPlaces(taker, fetcher.finerRowBytes());
    round.start(fetcher, keys, taker, executor);
  }

  private void start(RowRound round, int head) {
    int from = taker.attendedCount(head);
    int count = taker.chosenCount(head) - from;
    RowLookup lookup = target.lookup;
    lookup.clear();
    for (int i = 0; i < count; i++) {
      lookup.add(head, taker.chosenPosition(head, from + i));
    }
    lookup.find(arena);
    for (int i = 0; i < count; i++) {
      int row = lookup.row(i);
      if (row == RowArena.ABSENT) {
        round.batch.add(taker.chosenPosition(head, from + i), head, from + i);
      } else if (!arena.isPending(row)) {
        give(head, from + i, row, first);
        refine(round, head, from + i);
      } else if (isAwaited()) {
        arena.keep(row);
        coming.addLong((long) head << Integer.SIZE | (from + i));
        refine(round, head, from + i);
      } else {
        round.batch.add(taker.chosenPosition(head, from + i), head, from + i);
      }
    }
  }

  private void refine(RowRound round, int head, int index) {
    if (taker.refines(head, index)) {
      round.refine(taker.chosenPosition(head, index), head, index);
    }
  }

  /** Whether what a prefetch is bringing is worth waiting for. */
  private boolean isAwaited() {
    Prefetch prefetch = target.prefetch;
    return prefetch != null && !prefetch.givenUp() && !prefetchWaitedFor;
  }

  private void give(int head, int index, int row, boolean hit) {
    taker.giveRow(head, index, arena.chunk(row), arena.offset(row));
    if (arena.takeAhead(row)) {
      target.aheadUnused -= fetcher.rowBytes(taker.rowSections(head));
    }
    if (hit) {
      arena.use(row);
      hits++;
    } else {
      arena.keep(row);
    }
  }

  /** Starts fetches, does whatever can be done beside them, and attends to what they bring. */
  private void give(List<RowRound> rounds, Runnable starts) {
    try {
      starts.run();
      taker.attendRows();
      if (!coming.isEmpty()) {
        awaitPrefetch();
      }
      for (RowRound round : rounds) {
        long startNs = System.nanoTime();
        try {
          round.await();
        } finally {
          unhiddenNs += System.nanoTime() - startNs;
        }
        round.give(taker);
        fetched += round.placed();
        unkept += round.stagedRows();
        taker.attendRows();
      }
    } finally {
      // What could not be attended to yet and lies in the staging memory has to come again.
      taker.forgetRows();
      long staged = 0;
      for (RowRound round : rounds) {
        staged += round.stagedBytes();
        round.release();
      }
      stagedBytes = Math.max(stagedBytes, staged);
    }
  }

  /**
   * Waits for a prefetch once, part by part, and attends to what comes; what it fails to bring is
   * fetched like anything else.
   */
  private void awaitPrefetch() {
    Prefetch prefetch = target.prefetch;
    prefetchWaitedFor = true;
    if (prefetch == null) {
      return;
    }
    long deadlineNs = System.nanoTime() + timeoutNs;
    for (Prefetch.Part part : prefetch.parts()) {
      if (!hasEnded(part, deadlineNs)) {
        prefetch.giveUp();
        return;
      }
      part.settle(target);
      coming.removeIfLong(token -> giveIfThere((int) (token >>> Integer.SIZE), (int) token));
      taker.attendRows();
    }
    target.prefetch = null;
  }

  /** Waits for a part of a prefetch; false: it has not ended in time. */
  private boolean hasEnded(Prefetch.Part part, long deadlineNs) {
    long startNs = System.nanoTime();
    try {
      part.done.get(Math.max(0, deadlineNs - startNs), TimeUnit.NANOSECONDS);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new KvtierException(Code.UNAVAILABLE, "interrupted while rows are being fetched", e);
    } catch (TimeoutException e) {
      return false;
    } catch (ExecutionException e) {
      // The step fetches for itself and tells if that fails too.
    } finally {
      unhiddenNs += System.nanoTime() - startNs;
    }
    return true;
  }

  private boolean giveIfThere(int head, int index) {
    int row = arena.find(RowArena.key(head, taker.chosenPosition(head, index)));
    if (row == RowArena.ABSENT || arena.isPending(row)) {
      return false;
    }
    give(head, index, row, false);
    hits++;
    late++;
    return true;
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

  /** Nanoseconds of the choice. */
  long chooseNs() {
    return chooseNs;
  }

  /** Nanoseconds of waiting. */
  long unhiddenNs() {
    return unhiddenNs;
  }

  /** Most device bytes that were held beside the arena, and in what was lent to it. */
  long stagedBytes() {
    return stagedBytes;
  }
}
