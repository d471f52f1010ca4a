package io.kvtier.gpuworker.session;

import io.kvtier.gpuworker.device.CodesTaker;
import io.kvtier.gpuworker.device.DeviceReserve;
import io.kvtier.gpuworker.device.DeviceSlot;
import io.kvtier.page.PageKey;
import io.kvtier.page.Residence;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.Executor;

/**
 * Rows that a query needs and one fetch brings: to places in the arena, or in memory of the round's
 * own where the arena has none. Unless it is {@link #complete}, the arena forgets what it was to
 * get. One thread; the caller holds the layer's lock.
 */
final class RowRound {
  /** The rows; each one's number is its index among its head's chosen tokens. */
  final RowBatch batch = new RowBatch();

  /** What four bits leave of tokens that are refined; numbers as those of rows. */
  private final RowBatch rests = new RowBatch();

  private final RowArena arena;
  private final DeviceReserve memory;
  private final int stagingBytes;
  private final List<DeviceSlot> staging = new ArrayList<>();

  /** By row of the batch: its row in the arena. */
  private int[] admitted = {};

  /** Rows of the batch that have a place. */
  private int placed;

  /** Of these, rows in memory of its own. */
  private int staged;

  private CompletableFuture<Void> fetch = CompletableFuture.completedFuture(null);
  private CompletableFuture<Void> restFetch = fetch;
  private final List<DeviceSlot> restPlaces = new ArrayList<>();
  private boolean complete;

  /**
   * A round without rows.
   *
   * @param memory for rows that the arena has no place for
   * @param stagingBytes most bytes of rows that are held beside the arena, a chunk or more
   */
  RowRound(RowArena arena, DeviceReserve memory, int stagingBytes) {
    this.arena = arena;
    this.memory = memory;
    this.stagingBytes = stagingBytes;
  }

  /**
   * Finds places for the batch's rows: in the arena, else in staging memory, whole pages of a head
   * at a time there, since parts of one cannot be attended to. Rows without a place are dropped
   * from the batch.
   *
   * @param lookup to be used meanwhile
   */
  void findPlaces(RowLookup lookup) {
    if (batch.count() == 0) {
      return;
    }
    batch.sort();
    admit(lookup);
    int room = Math.max(1, stagingBytes / chunkBytes()) * RowArena.CHUNK_ROWS;
    while (placed < batch.count()) {
      int to = placed + 1;
      while (to < batch.count()
          && batch.page(to) == batch.page(placed)
          && batch.kvHead(to) == batch.kvHead(placed)) {
        to++;
      }
      if (staged + (to - placed) > room) {
        // Later rows cannot be attended to before these.
        break;
      }
      for (; placed < to; placed++) {
        place(placed);
      }
    }
    for (int i = placed; i < batch.count(); i++) {
      discard(i);
    }
    batch.truncate(placed);
  }

  /** A row that a prefetch has been too slow to bring is there already, and still its own. */
  private void admit(RowLookup lookup) {
    lookup.clear();
    for (int i = 0; i < batch.count(); i++) {
      lookup.add(batch.kvHead(i), batch.position(i));
    }
    lookup.admit(arena);
    admitted = new int[batch.count()];
    Arrays.setAll(admitted, lookup::row);
  }

  /** Gives up the arena's row for a row of the batch, once. */
  private void discard(int index) {
    if (admitted[index] != RowArena.ABSENT) {
      arena.discard(admitted[index]);
      admitted[index] = RowArena.ABSENT;
    }
  }

  private void place(int index) {
    int row = admitted[index];
    if (row == RowArena.ABSENT) {
      int offset = staged % RowArena.CHUNK_ROWS * arena.rowBytes();
      batch.place(index, stagingChunk(staged++), offset);
    } else {
      batch.place(index, arena.chunk(row), arena.offset(row));
    }
  }

  /** Wants what four bits leave of a token, whose row is there or has been promised a place. */
  void refine(int position, int kvHead, int number) {
    rests.add(position, kvHead, number);
  }

  /**
   * Finds places for what is wanted beyond four bits, also of the batch's rows that have one, in
   * memory of its own.
   *
   * @param bytesOfRest of a token
   */
  void findRestPlaces(CodesTaker taker, int bytesOfRest) {
    for (int i = 0; i < placed; i++) {
      if (taker.refines(batch.kvHead(i), batch.number(i))) {
        refine(batch.position(i), batch.kvHead(i), batch.number(i));
      }
    }
    rests.sort();
    // Slots of one length: memory is cut up by lengths.
    int each = Residence.FINER_TOKENS_MAX;
    for (int i = 0; i < rests.count(); i++) {
      if (i % each == 0) {
        restPlaces.add(memory.allocate(each * bytesOfRest));
      }
      rests.place(i, restPlaces.getLast(), i % each * bytesOfRest);
    }
  }

  private int chunkBytes() {
    return RowArena.CHUNK_ROWS * arena.rowBytes();
  }

  private DeviceSlot stagingChunk(int row) {
    if (row / RowArena.CHUNK_ROWS == staging.size()) {
      staging.add(memory.allocate(chunkBytes()));
    }
    return staging.getLast();
  }

  /** Starts the fetch, which writes to the places until it has been waited for. */
  void start(RowFetcher fetcher, List<PageKey> keys, CodesTaker taker, Executor executor) {
    if (batch.count() > 0) {
      fetch =
          CompletableFuture.runAsync(
              () -> fetcher.fetch(batch, keys, taker::rowSections), executor);
    }
    if (rests.count() > 0) {
      restFetch =
          CompletableFuture.runAsync(
              () -> fetcher.fetch(rests, keys, head -> fetcher.finerSections()), executor);
    }
  }

  /**
   * Waits for the fetch.
   *
   * @throws io.kvtier.KvtierException if it is refused
   */
  void await() {
    try {
      fetch.join();
      restFetch.join();
    } catch (CompletionException e) {
      throw e.getCause() instanceof RuntimeException refused ? refused : e;
    }
  }

  /** Gives what has come; rows in staging memory are valid until {@link #release}. */
  void give(CodesTaker taker) {
    complete = true;
    for (int i = 0; i < placed; i++) {
      if (admitted[i] != RowArena.ABSENT) {
        arena.filled(admitted[i]);
      }
      taker.giveRow(batch.kvHead(i), batch.number(i), batch.slot(i), batch.offset(i));
    }
    for (int i = 0; i < rests.count(); i++) {
      taker.giveRest(rests.kvHead(i), rests.number(i), rests.slot(i), rests.offset(i));
    }
  }

  int placed() {
    return placed;
  }

  /** Rows that are gone with the round. */
  int stagedRows() {
    return staged;
  }

  long stagedBytes() {
    long bytes = staging.isEmpty() ? 0 : (long) staging.size() * chunkBytes();
    return bytes + restPlaces.stream().mapToLong(DeviceSlot::length).sum();
  }

  /** Ends the round; waits for the fetch, since it writes to memory that is the round's. */
  void release() {
    fetch.exceptionally(refused -> null).join();
    restFetch.exceptionally(refused -> null).join();
    // Also rows that never got a place, where finding places has failed.
    for (int i = 0; !complete && i < admitted.length; i++) {
      discard(i);
    }
    staging.forEach(DeviceSlot::release);
    staging.clear();
    restPlaces.forEach(DeviceSlot::release);
    restPlaces.clear();
  }
}
