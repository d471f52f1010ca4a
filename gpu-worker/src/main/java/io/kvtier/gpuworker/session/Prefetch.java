package io.kvtier.gpuworker.session;

import io.kvtier.gpuworker.device.DeviceSlot;
import java.util.HashSet;
import java.util.Set;
import java.util.concurrent.CompletableFuture;

/**
 * Rows on their way into an arena, ahead of the step that needs them. The memory that they go to is
 * held until {@link #release}, whatever becomes of the arena meanwhile.
 */
final class Prefetch {
  /** Ends when the rows are there, or with what has kept them from coming. */
  final CompletableFuture<Void> done = new CompletableFuture<>();

  /** The rows; each one's number is its row in the arena. */
  final RowBatch batch;

  private final Set<DeviceSlot> held = new HashSet<>();

  /** Holds the places of a batch; the caller holds the layer's lock. */
  Prefetch(RowBatch batch, RowArena arena) {
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
   * Makes what has come known to the arena, and takes out what has not. The caller holds the
   * layer's lock, and {@link #done} has ended.
   */
  void settle(RowArena arena) {
    boolean came = !done.isCompletedExceptionally();
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

  void release() {
    held.forEach(DeviceSlot::release);
    held.clear();
  }
}
