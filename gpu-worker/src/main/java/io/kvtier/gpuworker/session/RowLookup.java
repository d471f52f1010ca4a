package io.kvtier.gpuworker.session;

import java.util.Arrays;

/** Tokens whose rows an arena is asked for, many at once. One thread. */
final class RowLookup {
  private int[] keys = new int[256];
  private int[] rows = new int[256];
  private int count;

  void clear() {
    count = 0;
  }

  void add(int kvHead, int position) {
    if (count == keys.length) {
      keys = Arrays.copyOf(keys, 2 * count);
      rows = new int[keys.length];
    }
    keys[count++] = RowArena.key(kvHead, position);
  }

  /** Looks all of them up. */
  void find(RowArena arena) {
    arena.findAll(keys, count, rows);
  }

  /** Has rows made for those that have none. */
  void admit(RowArena arena) {
    arena.admitAll(keys, count, rows);
  }

  /**
   * What was found or made for a token, by the order in which they were added; {@link
   * RowArena#ABSENT}: nothing.
   */
  int row(int index) {
    return rows[index];
  }
}
