package io.kvtier.gpuworker.session;

import io.kvtier.gpuworker.device.CodesTaker;

/** Looks chosen tokens of one head up in an arena, many at once. One thread. */
final class RowLookup {
  private int[] keys = {};
  private int[] rows = {};

  /** Looks {@code count} of a head's chosen tokens up, from one on. */
  void find(RowArena arena, CodesTaker taker, int kvHead, int from, int count) {
    if (keys.length < count) {
      keys = new int[count + count / 4];
      rows = new int[keys.length];
    }
    for (int i = 0; i < count; i++) {
      keys[i] = RowArena.key(kvHead, taker.chosenPosition(kvHead, from + i));
    }
    arena.findAll(keys, count, rows);
  }

  /** The row of a token that was looked up; {@link RowArena#ABSENT}: there is none. */
  int row(int index) {
    return rows[index];
  }
}
