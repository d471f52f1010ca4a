package io.kvtier.gpuworker.session;

import com.google.errorprone.annotations.CanIgnoreReturnValue;
import io.kvtier.KvtierException;
import io.kvtier.gpuworker.device.DeviceMemory;
import io.kvtier.gpuworker.device.DeviceSlot;
import java.util.Arrays;

/**
 * Rows of dominant tokens of one layer that stay on the device for later steps, bounded in bytes,
 * its own tables included. Rows lie in chunks of {@link #CHUNK_ROWS}, taken as they are needed and
 * given back when the bound falls; an open hash table finds them.
 *
 * <p>Eviction is a clock over small counts of use (Corbató, 1969; GCLOCK: Smith, 1978): a row that
 * is used again is counted up, the hand counts down what it passes and takes a row whose count is
 * 0. New rows begin at 0, so that tokens chosen once leave before those that recur. What the step
 * under way uses, and what was brought ahead for the next one, is kept whatever its count. Nothing
 * is allocated unless the arena grows.
 *
 * <p>Guarded by the layer's lock, but for {@link #bytes()}, {@link #slotBytes()} and {@link
 * #limit}.
 */
final class RowArena {
  /** Rows that are taken from the device's memory at once. */
  static final int CHUNK_ROWS = 64;

  /** No row. */
  static final int ABSENT = -1;

  private static final int CHUNK_SHIFT = 6;
  private static final int COUNT_MAX = 7;
  private static final int COUNT_MASK = 7;
  private static final int AHEAD = 8;
  private static final int PENDING = 16;
  private static final int STEP_SHIFT = 5;
  private static final int STEP_MAX = (1 << (Integer.SIZE - STEP_SHIFT - 1)) - 2;
  private static final int POSITION_BITS = 20;

  private final DeviceMemory memory;
  private int rowBytes;
  private volatile long bytesMax;

  /** Bytes beyond the bound, until a step ends. */
  private long lent;

  private volatile long bytes;
  private volatile long slotBytes;
  private DeviceSlot[] chunks = new DeviceSlot[0];
  private int chunkCount;

  /** By row: its key, or the complement of one more than the next free row. */
  private int[] keys = new int[0];

  /**
   * By row: the last step that needs it, whether it is still to come, whether it came ahead and
   * nobody has used it since, how often it was used again.
   */
  private int[] marks = new int[0];

  /**
   * Rows by the hash of their keys: one more than their index, and above the bits that are needed
   * for that what is left of the hash, so that few searches look at keys in vain; 0: none.
   */
  private int[] table = new int[0];

  private int firstFree = ABSENT;
  private int hand;
  private int step;

  /** The first step that rows brought ahead now are for. */
  private int aheadFrom;

  /** The step in which the hand found nothing to take. */
  private int stuckAt = -1;

  RowArena(DeviceMemory memory) {
    this.memory = memory;
  }

  /** What finds a token of a head; not negative. */
  static int key(int kvHead, int position) {
    return kvHead << POSITION_BITS | position;
  }

  // ---- bounds

  /** Drops all rows; those to come are of so many bytes. 0: there will be none. */
  void reset(int bytesOfRow) {
    var _ = dropChunks(0);
    lent = 0;
    rowBytes = bytesOfRow;
  }

  /** Bytes of a row; all rows have the same. */
  int rowBytes() {
    return rowBytes;
  }

  /** Sets the bound, which holds from the next {@link #fit} on. */
  void limit(long most) {
    bytesMax = most;
  }

  long bytesMax() {
    return bytesMax;
  }

  /**
   * Lets the arena go beyond its bound, once nothing within it can be evicted, until the step under
   * way ends, or else the next one: rows that are brought ahead for a step need a place even where
   * there is none for rows that stay.
   */
  void lend(long bytesBeyond) {
    lent = bytesBeyond;
  }

  /**
   * Gives back what is beyond the bound.
   *
   * @return rows that are gone
   */
  @CanIgnoreReturnValue
  int fit() {
    int count = chunkCount;
    while (count > 0 && cost(count) > bytesMax + lent) {
      count--;
    }
    return count < chunkCount ? dropChunks(count) : 0;
  }

  /** Bytes that it takes, tables included. */
  long bytes() {
    return bytes;
  }

  /** Bytes that it takes of the device's memory. */
  long slotBytes() {
    return slotBytes;
  }

  /** Bytes of so many chunks with their tables. */
  private long cost(int count) {
    return count == 0
        ? 0
        : (long) count * chunkBytes()
            + (long) Integer.BYTES * (2L * roomFor(count) + tableFor(count));
  }

  private int chunkBytes() {
    return (CHUNK_ROWS * rowBytes + 63) & -64;
  }

  /** Rows that the arrays have room for: in steps of an eighth, so that they seldom move. */
  private static int roomFor(int count) {
    int step = Math.max(1, Integer.highestOneBit(count) >> 3);
    return (count + step - 1) / step * step * CHUNK_ROWS;
  }

  /** Entries of the table: a power of two, at most three quarters used. */
  private static int tableFor(int count) {
    return Integer.highestOneBit(Math.max(1, count * CHUNK_ROWS * 4 / 3 - 1)) << 1;
  }

  private boolean grow(long most) {
    if (rowBytes == 0 || cost(chunkCount + 1) > most) {
      return false;
    }
    DeviceSlot chunk;
    try {
      chunk = memory.allocate(chunkBytes());
    } catch (KvtierException e) {
      // The device is full: the arena makes do with what it has.
      return false;
    }
    int first = rows();
    setChunkCount(chunkCount + 1);
    chunks[chunkCount - 1] = chunk;
    for (int row = rows() - 1; row >= first; row--) {
      free(row);
    }
    return true;
  }

  private int dropChunks(int count) {
    int gone = 0;
    int rowsLeft = count * CHUNK_ROWS;
    for (int chunk = count; chunk < chunkCount; chunk++) {
      chunks[chunk].release();
    }
    Arrays.fill(chunks, count, chunkCount, null);
    // Only what goes is touched: a session that grows gives back a chunk now and then.
    for (int row = rowsLeft; row < rows(); row++) {
      if (keys[row] >= 0) {
        gone++;
        if (count > 0) {
          remove(row);
        }
      }
    }
    int free = firstFree;
    firstFree = ABSENT;
    while (free != ABSENT) {
      int next = ~keys[free] - 1;
      if (free < rowsLeft) {
        free(free);
      }
      free = next;
    }
    hand = hand < rowsLeft ? hand : 0;
    setChunkCount(count);
    return gone;
  }

  private void setChunkCount(int count) {
    int rows = Math.min(chunkCount, count) * CHUNK_ROWS;
    chunkCount = count;
    int room = count == 0 ? 0 : roomFor(count);
    if (room != keys.length) {
      keys = Arrays.copyOf(keys, room);
      marks = Arrays.copyOf(marks, room);
      chunks = Arrays.copyOf(chunks, room / CHUNK_ROWS);
    }
    int entries = count == 0 ? 0 : tableFor(count);
    if (entries != table.length) {
      table = new int[entries];
      for (int row = 0; row < rows; row++) {
        if (keys[row] >= 0) {
          insert(row);
        }
      }
    }
    bytes = cost(count);
    slotBytes = (long) count * chunkBytes();
  }

  private int rows() {
    return chunkCount * CHUNK_ROWS;
  }

  private void free(int row) {
    keys[row] = ~(firstFree + 1);
    firstFree = row;
  }

  // ---- rows

  /**
   * Ends a step: what it used, and what was kept for it, may be evicted again.
   *
   * @return rows that are gone, for want of what was lent
   */
  @CanIgnoreReturnValue
  int endStep() {
    lent = 0;
    int gone = fit();
    step++;
    if (step == STEP_MAX) {
      step = 1;
      for (int row = 0; row < rows(); row++) {
        marks[row] &= (1 << STEP_SHIFT) - 1;
      }
      stuckAt = -1;
      aheadFrom = step;
    }
    return gone;
  }

  /** The row of a key; {@link #ABSENT}: there is none. */
  int find(int key) {
    if (table.length == 0) {
      return ABSENT;
    }
    int hash = hashOf(key);
    int mask = table.length - 1;
    for (int at = hash & mask; table[at] != 0; at = (at + 1) & mask) {
      int row = (table[at] & mask) - 1;
      if (((table[at] ^ hash) & ~mask) == 0 && keys[row] == key) {
        return row;
      }
    }
    return ABSENT;
  }

  /**
   * The rows of many keys, as {@link #find} gives them: what one search waits for in memory the
   * others wait for at the same time.
   *
   * @param rows receives a row for each of {@code count} keys
   */
  void findAll(int[] wanted, int count, int[] rows) {
    if (table.length == 0) {
      Arrays.fill(rows, 0, count, ABSENT);
      return;
    }
    int mask = table.length - 1;
    for (int i = 0; i < count; i++) {
      int hash = hashOf(wanted[i]);
      int at = hash & mask;
      while (table[at] != 0 && ((table[at] ^ hash) & ~mask) != 0) {
        at = (at + 1) & mask;
      }
      rows[i] = (table[at] & mask) - 1;
    }
    for (int i = 0; i < count; i++) {
      if (rows[i] != ABSENT && keys[rows[i]] != wanted[i]) {
        rows[i] = find(wanted[i]);
      }
    }
  }

  /** Whether a row's bytes are still to come. */
  boolean isPending(int row) {
    return (marks[row] & PENDING) != 0;
  }

  /** Counts a use by the step under way, and keeps the row until it ends. */
  void use(int row) {
    int mark = marks[row];
    int count = Math.min(COUNT_MAX, (mark & COUNT_MASK) + 1);
    marks[row] = step << STEP_SHIFT | (mark & PENDING) | count;
  }

  /** Keeps a row until the step under way, or else the next one, ends. */
  void keep(int row) {
    marks[row] = step << STEP_SHIFT | (marks[row] & ((1 << STEP_SHIFT) - 1));
  }

  /**
   * Makes a row for a key that has none; its bytes are to come, until {@link #filled} or {@link
   * #discard}. It is kept as by {@link #keep}.
   *
   * @return {@link #ABSENT} if there is no room
   */
  int admit(int key) {
    if (firstFree == ABSENT && !grow(bytesMax)) {
      evict();
      if (firstFree == ABSENT && lent > 0) {
        var _ = grow(bytesMax + lent);
      }
    }
    int row = firstFree;
    if (row != ABSENT) {
      firstFree = ~keys[row] - 1;
      keys[row] = key;
      marks[row] = step << STEP_SHIFT | PENDING;
      insert(row);
    }
    return row;
  }

  /** The same for a row that is brought before anybody has chosen it. */
  int admitAhead(int key) {
    int row = admit(key);
    if (row != ABSENT) {
      marks[row] |= AHEAD;
    }
    return row;
  }

  /** Keeps a row for the next step; what was brought for one before and not used is no longer. */
  void keepAhead(int row) {
    if (marks[row] >>> STEP_SHIFT < aheadFrom) {
      marks[row] &= ~AHEAD;
    }
    keep(row);
  }

  /** Whether a row was brought ahead and this is its first use; to be asked before that. */
  boolean takeAhead(int row) {
    int mark = marks[row];
    if ((mark & AHEAD) == 0) {
      return false;
    }
    marks[row] = mark & ~AHEAD;
    return mark >>> STEP_SHIFT >= aheadFrom;
  }

  /** What was brought ahead until now and not used was brought in vain. */
  void endAhead() {
    aheadFrom = step;
  }

  private void evict() {
    if (stuckAt == step) {
      return;
    }
    int rows = rows();
    for (int passed = 0; passed < (COUNT_MAX + 1) * rows; passed++) {
      int row = hand;
      hand = hand + 1 == rows ? 0 : hand + 1;
      int mark = marks[row];
      if ((mark & PENDING) != 0 || mark >>> STEP_SHIFT >= step) {
        continue;
      }
      if ((mark & COUNT_MASK) == 0) {
        discard(row);
        return;
      }
      marks[row] = mark - 1;
    }
    stuckAt = step;
  }

  /** The bytes of an admitted row are there. */
  void filled(int row) {
    marks[row] &= ~PENDING;
  }

  /** Takes a row out. */
  void discard(int row) {
    remove(row);
    free(row);
  }

  /** Whether a row that was admitted for a key is still that, in the memory where it was. */
  boolean awaits(int row, int key, DeviceSlot chunk) {
    return row < rows()
        && keys[row] == key
        && isPending(row)
        && chunks[row >> CHUNK_SHIFT] == chunk;
  }

  /** Memory that holds a row. */
  DeviceSlot chunk(int row) {
    return chunks[row >> CHUNK_SHIFT];
  }

  /** Where a row begins in its memory. */
  int offset(int row) {
    return (row & (CHUNK_ROWS - 1)) * rowBytes;
  }

  // ---- the table

  private static int hashOf(int key) {
    int hash = key * 0x9E3779B9;
    return hash ^ hash >>> 15;
  }

  private int slotOf(int key) {
    return hashOf(key) & (table.length - 1);
  }

  private void insert(int row) {
    int hash = hashOf(keys[row]);
    int mask = table.length - 1;
    int at = hash & mask;
    while (table[at] != 0) {
      at = (at + 1) & mask;
    }
    table[at] = (hash & ~mask) | (row + 1);
  }

  /** Moves later entries of the run forward, so that no search ends early (Knuth, 6.4, R). */
  private void remove(int row) {
    int mask = table.length - 1;
    int gap = slotOf(keys[row]);
    while ((table[gap] & mask) != row + 1) {
      gap = (gap + 1) & mask;
    }
    int at = gap;
    while (true) {
      at = (at + 1) & mask;
      if (table[at] == 0) {
        break;
      }
      int home = slotOf(keys[(table[at] & mask) - 1]);
      if (((at - home) & mask) >= ((at - gap) & mask)) {
        table[gap] = table[at];
        gap = at;
      }
    }
    table[gap] = 0;
  }
}
