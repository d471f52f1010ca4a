package io.kvtier.gpuworker.session;

import com.google.errorprone.annotations.CanIgnoreReturnValue;
import io.kvtier.KvtierException;
import io.kvtier.gpuworker.device.DeviceMemory;
import io.kvtier.gpuworker.device.DeviceSlot;
import java.util.Arrays;

/**
 * Rows of dominant tokens of one layer that stay on the device for later steps, bounded in bytes,
 * its own tables included. Rows lie in chunks of {@link #CHUNK_ROWS}, taken as they are needed and
 * given back when the bound falls; a {@link RowTable} finds them.
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
  static final int ABSENT = RowTable.ABSENT;

  private static final int CHUNK_SHIFT = 6;
  private static final int COUNT_MAX = 7;
  private static final int COUNT_MASK = 7;
  private static final int AHEAD = 8;
  private static final int PENDING = 16;
  private static final int STEP_SHIFT = 5;
  private static final int STEP_MAX = (1 << (Integer.SIZE - STEP_SHIFT - 1)) - 2;
  private static final int POSITION_BITS = 20;

  /**
   * Rows that are evicted together at most: what one waits for in memory the others wait for too.
   */
  private static final int VICTIMS_MAX = 128;

  private final DeviceMemory memory;
  private int rowBytes;
  private volatile long bytesMax;

  /** Bytes beyond the bound, until a step ends. */
  private long lent;

  private volatile long bytes;
  private volatile long slotBytes;
  private DeviceSlot[] chunks = new DeviceSlot[0];
  private int chunkCount;

  /**
   * By row: in the upper half its key, or the complement of one more than the next free row; in the
   * lower half its mark, the last step that needs it, whether it is still to come, whether it came
   * ahead and nobody has used it since, how often it was used again.
   */
  private long[] rows = new long[0];

  private final RowTable table = new RowTable();
  private int freeCount;
  private int firstFree = ABSENT;
  private int hand;
  private int step;

  /** The first step that rows brought ahead now are for. */
  private int aheadFrom;

  /** The step in which the hand found too little to take. */
  private int stuckAt = -1;

  private final int[] victims = new int[VICTIMS_MAX];
  private final int[] victimKeys = new int[VICTIMS_MAX];

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
            + (long) Long.BYTES * roomFor(count)
            + (long) Integer.BYTES * RowTable.entriesFor(count * CHUNK_ROWS);
  }

  private int chunkBytes() {
    return (CHUNK_ROWS * rowBytes + 63) & -64;
  }

  /** Rows that the arrays have room for: in steps of an eighth, so that they seldom move. */
  private static int roomFor(int count) {
    int step = Math.max(1, Integer.highestOneBit(count) >> 3);
    return (count + step - 1) / step * step * CHUNK_ROWS;
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
    int first = rowCount();
    setChunkCount(chunkCount + 1);
    chunks[chunkCount - 1] = chunk;
    for (int row = rowCount() - 1; row >= first; row--) {
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
    for (int row = rowsLeft; row < rowCount(); row++) {
      if (rows[row] >= 0) {
        gone++;
        if (count > 0) {
          table.remove(row, rows);
        }
      }
    }
    int free = firstFree;
    firstFree = ABSENT;
    freeCount = 0;
    while (free != ABSENT) {
      int next = nextFree(free);
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
    int kept = Math.min(chunkCount, count) * CHUNK_ROWS;
    chunkCount = count;
    int room = count == 0 ? 0 : roomFor(count);
    if (room != rows.length) {
      rows = Arrays.copyOf(rows, room);
      chunks = Arrays.copyOf(chunks, room / CHUNK_ROWS);
    }
    int entries = RowTable.entriesFor(count * CHUNK_ROWS);
    if (entries != table.entries()) {
      table.reset(entries);
      for (int row = 0; row < kept; row++) {
        if (rows[row] >= 0) {
          table.insert(keyOf(row), row);
        }
      }
    }
    bytes = cost(count);
    slotBytes = (long) count * chunkBytes();
  }

  private int rowCount() {
    return chunkCount * CHUNK_ROWS;
  }

  private void free(int row) {
    rows[row] = (long) ~(firstFree + 1) << Integer.SIZE;
    firstFree = row;
    freeCount++;
  }

  private int nextFree(int row) {
    return ~keyOf(row) - 1;
  }

  private int keyOf(int row) {
    return (int) (rows[row] >>> Integer.SIZE);
  }

  private int markOf(int row) {
    return (int) rows[row];
  }

  private void mark(int row, int mark) {
    rows[row] = (rows[row] & (-1L << Integer.SIZE)) | mark;
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
      for (int row = 0; row < rowCount(); row++) {
        mark(row, markOf(row) & ((1 << STEP_SHIFT) - 1));
      }
      stuckAt = -1;
      aheadFrom = step;
    }
    return gone;
  }

  /** The row of a key; {@link #ABSENT}: there is none. */
  int find(int key) {
    return table.find(key, rows);
  }

  /**
   * The rows of many keys, as {@link #find} gives them, in less time.
   *
   * @param found receives a row for each of {@code count} keys
   */
  void findAll(int[] wanted, int count, int[] found) {
    table.findAll(wanted, count, found, rows);
  }

  /** Whether a row's bytes are still to come. */
  boolean isPending(int row) {
    return (markOf(row) & PENDING) != 0;
  }

  /** Counts a use by the step under way, and keeps the row until it ends. */
  void use(int row) {
    int mark = markOf(row);
    int count = Math.min(COUNT_MAX, (mark & COUNT_MASK) + 1);
    mark(row, step << STEP_SHIFT | (mark & PENDING) | count);
  }

  /** Keeps a row until the step under way, or else the next one, ends. */
  void keep(int row) {
    mark(row, step << STEP_SHIFT | (markOf(row) & ((1 << STEP_SHIFT) - 1)));
  }

  /**
   * Makes rows for those of many keys that have none; their bytes are to come, until {@link
   * #filled} or {@link #discard}. They are kept as by {@link #keep}.
   *
   * @param wanted no key twice
   * @param made receives a row for each of {@code count} keys; {@link #ABSENT}: it has one, or
   *     there is no room
   */
  void admitAll(int[] wanted, int count, int[] made) {
    table.findAll(wanted, count, made, rows);
    int missing = 0;
    for (int i = 0; i < count; i++) {
      missing += made[i] == ABSENT ? 1 : 0;
    }
    makeRoom(missing);
    for (int i = 0; i < count; i++) {
      made[i] = made[i] == ABSENT ? make(wanted[i]) : ABSENT;
    }
  }

  /** Frees so many rows, or as many as there can be. */
  private void makeRoom(int count) {
    boolean grows = true;
    while (freeCount < count && grows) {
      grows = grow(bytesMax);
    }
    evict(count - freeCount);
    grows = lent > 0;
    while (freeCount < count && grows) {
      grows = grow(bytesMax + lent);
    }
  }

  private int make(int key) {
    int row = firstFree;
    if (row != ABSENT) {
      firstFree = nextFree(row);
      freeCount--;
      rows[row] = ((long) key << Integer.SIZE) | (step << STEP_SHIFT) | PENDING;
      table.insert(key, row);
    }
    return row;
  }

  /** Says that a row was made before anybody has chosen it. */
  void markAhead(int row) {
    mark(row, markOf(row) | AHEAD);
  }

  /** Keeps a row for the next step; what was brought for one before and not used is no longer. */
  void keepAhead(int row) {
    if (markOf(row) >>> STEP_SHIFT < aheadFrom) {
      mark(row, markOf(row) & ~AHEAD);
    }
    keep(row);
  }

  /** Whether a row was brought ahead and this is its first use; to be asked before that. */
  boolean takeAhead(int row) {
    int mark = markOf(row);
    if ((mark & AHEAD) == 0) {
      return false;
    }
    mark(row, mark & ~AHEAD);
    return mark >>> STEP_SHIFT >= aheadFrom;
  }

  /** What was brought ahead until now and not used was brought in vain. */
  void endAhead() {
    aheadFrom = step;
  }

  /** Evicts so many rows, or as many as may go. */
  private void evict(int count) {
    if (count <= 0 || stuckAt == step) {
      return;
    }
    int left = count;
    int found = 0;
    long steps = (COUNT_MAX + 1L) * rowCount();
    while (left > 0 && steps-- > 0) {
      int row = hand;
      int mark = markOf(row);
      if (rows[row] >= 0 && (mark & PENDING) == 0 && mark >>> STEP_SHIFT < step) {
        if ((mark & COUNT_MASK) == 0) {
          victims[found++] = row;
          left--;
        } else {
          mark(row, mark - 1);
        }
      }
      hand = row + 1 == rowCount() ? 0 : row + 1;
      // None may be found twice.
      if (found == VICTIMS_MAX || hand == 0) {
        discardVictims(found);
        found = 0;
      }
    }
    discardVictims(found);
    if (left > 0) {
      stuckAt = step;
    }
  }

  private void discardVictims(int count) {
    for (int i = 0; i < count; i++) {
      victimKeys[i] = keyOf(victims[i]);
    }
    table.findAll(victimKeys, count, victims, rows);
    for (int i = 0; i < count; i++) {
      discard(victims[i]);
    }
  }

  /** The bytes of an admitted row are there. */
  void filled(int row) {
    mark(row, markOf(row) & ~PENDING);
  }

  /** Takes a row out. */
  void discard(int row) {
    table.remove(row, rows);
    free(row);
  }

  /** Whether a row that was admitted for a key is still that, in the memory where it was. */
  boolean awaits(int row, int key, DeviceSlot chunk) {
    return row < rowCount()
        && keyOf(row) == key
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
}
