package io.kvtier.gpuworker.session;

import java.util.Arrays;

/**
 * Finds rows by their keys: an open hash table with linear probing. An entry is
 *
 * <pre>
 *   | what is left of the hash | displacement | one more than the row |    0: none
 * </pre>
 *
 * in 32 bits, of which the row has as many as the table's length needs, and the displacement, how
 * far the entry is from where its hash says, five or as many as there are. So neither a search in
 * vain nor a removal looks at keys, which lie anywhere in memory: entries of other hashes are told
 * apart by their bits, and what is moved when one goes is told by displacements. One that is too
 * large for its bits says only that, and is found by the key then.
 *
 * <p>Keys belong to the caller: of row {@code i} in the upper half of {@code rows[i]}. One thread.
 */
final class RowTable {
  /** No row. */
  static final int ABSENT = -1;

  private static final int DISPLACEMENT_BITS = 5;

  /** Bits of the hash that an entry keeps at least before it has any of the displacement. */
  private static final int HASH_BITS_MIN = 4;

  private final int displacementBitsMax;
  private int[] entries = {};

  /** The row's bits of an entry, and of a hash those that say where its entry should be. */
  private int mask;

  private int rowBits;

  /** A displacement of so much or more is not told. */
  private int far;

  /** Bits of an entry that are its hash's. */
  private int hashMask;

  RowTable() {
    this(DISPLACEMENT_BITS);
  }

  /** A table that tells displacements in so many bits at most. */
  RowTable(int displacementBitsMax) {
    this.displacementBitsMax = displacementBitsMax;
  }

  /** Entries of the table for so many rows: a power of two, at most three quarters used. */
  static int entriesFor(int rows) {
    return rows == 0 ? 0 : Integer.highestOneBit((4 * rows + 2) / 3 - 1) << 1;
  }

  int entries() {
    return entries.length;
  }

  /** Empties the table and gives it another length, a power of two or 0. */
  void reset(int length) {
    entries = new int[length];
    mask = length - 1;
    rowBits = Integer.numberOfTrailingZeros(length);
    int displacementBits =
        Math.clamp(Integer.SIZE - rowBits - HASH_BITS_MIN, 0, displacementBitsMax);
    far = (1 << displacementBits) - 1;
    hashMask = -1 << (rowBits + displacementBits);
  }

  private static int hashOf(int key) {
    int hash = key * 0x9E3779B9;
    return hash ^ hash >>> 15;
  }

  private static int keyOf(long[] rows, int row) {
    return (int) (rows[row] >>> Integer.SIZE);
  }

  /** The entry of a hash at a displacement, but for its row. */
  private int entry(int hash, int displacement) {
    return (hash & hashMask) | (Math.min(displacement, far) << rowBits);
  }

  /** The row of a key, or {@link #ABSENT}. */
  int find(int key, long[] rows) {
    if (entries.length == 0) {
      return ABSENT;
    }
    int hash = hashOf(key);
    for (int distance = 0; ; distance++) {
      int entry = entries[(hash + distance) & mask];
      if (entry == 0) {
        return ABSENT;
      }
      if (((entry ^ entry(hash, distance)) & ~mask) == 0
          && keyOf(rows, (entry & mask) - 1) == key) {
        return (entry & mask) - 1;
      }
    }
  }

  /**
   * The rows of many keys, as {@link #find} gives them: what one search waits for in memory the
   * others wait for at the same time. It is there for whoever changes these keys' entries next.
   *
   * @param found receives a row for each of {@code count} keys
   */
  void findAll(int[] keys, int count, int[] found, long[] rows) {
    if (entries.length == 0) {
      Arrays.fill(found, 0, count, ABSENT);
      return;
    }
    // Without a branch that may be guessed wrong, loads are many ahead of each other.
    for (int i = 0; i < count; i++) {
      found[i] = entries[hashOf(keys[i]) & mask];
    }
    for (int i = 0; i < count; i++) {
      int hash = hashOf(keys[i]);
      int distance = 0;
      int entry = found[i];
      while (entry != 0 && ((entry ^ entry(hash, distance)) & ~mask) != 0) {
        distance++;
        entry = entries[(hash + distance) & mask];
      }
      found[i] = (entry & mask) - 1;
    }
    for (int i = 0; i < count; i++) {
      if (found[i] != ABSENT && keyOf(rows, found[i]) != keys[i]) {
        found[i] = find(keys[i], rows);
      }
    }
  }

  /** Adds a row whose key has none; the table must have room. */
  void insert(int key, int row) {
    int hash = hashOf(key);
    int distance = 0;
    while (entries[(hash + distance) & mask] != 0) {
      distance++;
    }
    entries[(hash + distance) & mask] = entry(hash, distance) | (row + 1);
  }

  /**
   * Removes a row; later entries of the run move forward, so that no search ends early (Knuth, 6.4,
   * R).
   */
  void remove(int row, long[] rows) {
    int gap = hashOf(keyOf(rows, row)) & mask;
    while ((entries[gap] & mask) != row + 1) {
      gap = (gap + 1) & mask;
    }
    int at = gap;
    while (true) {
      at = (at + 1) & mask;
      int entry = entries[at];
      if (entry == 0) {
        break;
      }
      int distance = (at - gap) & mask;
      int displacement = displacement(entry, at, rows);
      if (displacement >= distance) {
        entries[gap] = (entry & (hashMask | mask)) | entry(0, displacement - distance);
        gap = at;
      }
    }
    entries[gap] = 0;
  }

  private int displacement(int entry, int at, long[] rows) {
    int told = (entry >>> rowBits) & far;
    return told < far ? told : (at - hashOf(keyOf(rows, (entry & mask) - 1))) & mask;
  }
}
