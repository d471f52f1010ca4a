package io.kvtier.gpuworker.session;

import io.kvtier.gpuworker.device.DeviceSlot;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.concurrent.CompletableFuture;

/**
 * Rows on their way into an arena, ahead of the step that needs them, in the parts that they were
 * chosen in. Parts are added and settled under the layer's lock.
 */
final class Prefetch {
  private final List<Part> parts = new ArrayList<>();
  private boolean givenUp;

  /**
   * Rows that one fetch brings. The memory that they go to is held until {@link #release}, whatever
   * becomes of the arena meanwhile.
   */
  static final class Part {
    /** Ends when the rows are there, or with what has kept them from coming. */
    final CompletableFuture<Void> done = new CompletableFuture<>();

    /** The rows; each one's number is its row in the arena. */
    final RowBatch batch;

    /** Bytes of the rows; set before {@link #done} ends well. */
    long bytes;

    private boolean settled;
    private final Set<DeviceSlot> held = new HashSet<>();

    private Part(RowBatch batch, RowArena arena) {
      this.batch = batch;
      for (int i = 0; i < batch.count(); i++) {
        DeviceSlot chunk = arena.chunk(batch.number(i));
        batch.place(i, chunk, arena.offset(batch.number(i)));
        if (held.add(chunk)) {
          chunk.retain();
        }
      }
    }

    /**
     * Makes what has come known to the arena, and takes out what has not, unless that is done.
     *
     * @throws IllegalStateException if {@link #done} has not ended
     */
    void settle(SessionLayer target) {
      if (!done.isDone()) {
        throw new IllegalStateException("the rows are still on their way");
      }
      if (settled) {
        return;
      }
      settled = true;
      RowArena arena = target.rows;
      boolean came = !done.isCompletedExceptionally();
      target.aheadUnused += came ? bytes : 0;
      for (int i = 0; i < batch.count(); i++) {
        int row = batch.number(i);
        int key = RowArena.key(batch.kvHead(i), batch.position(i));
        if (arena.awaits(row, key, batch.slot(i))) {
          if (came) {
            arena.filled(row);
          } else {
            arena.discard(row);
          }
        }
      }
    }

    private void release() {
      held.forEach(DeviceSlot::release);
      held.clear();
    }
  }

  /** Holds the places of a batch, in order, whose rows the arena awaits. */
  Part add(RowBatch batch, RowArena arena) {
    Part part = new Part(batch, arena);
    parts.add(part);
    return part;
  }

  /** In the order in which they were added. */
  List<Part> parts() {
    return parts;
  }

  /** Whether a step has waited for it in vain: no other will. */
  boolean givenUp() {
    return givenUp;
  }

  void giveUp() {
    givenUp = true;
  }

  /**
   * Waits until every part has ended.
   *
   * @throws java.util.concurrent.CompletionException what has kept one from coming
   */
  void join() {
    CompletableFuture.allOf(
            parts.stream().map(part -> part.done).toArray(CompletableFuture<?>[]::new))
        .join();
  }

  /** Lets go of the memory; {@link #join} has returned. */
  void release() {
    parts.forEach(Part::release);
  }
}
