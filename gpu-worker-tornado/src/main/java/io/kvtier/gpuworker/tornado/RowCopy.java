package io.kvtier.gpuworker.tornado;

import io.kvtier.KvtierException;
import io.kvtier.gpuworker.device.DeviceSlot;
import java.util.Arrays;
import org.jspecify.annotations.Nullable;

/**
 * A lane's copy of a slot of rows, kept as long as the slot: rows that are chosen again need not be
 * sent again. The host writes other rows to a slot as it likes; so the copy remembers whose row it
 * has where. It takes room in the second step that gives rows of the slot, since many slots last
 * for one. Guarded by the layer whose rows they are.
 */
final class RowCopy implements DeviceSlot.Copy {
  /** No row. */
  private static final int NONE = -1;

  /** Of a lane, at least this part is left to what layers hold. */
  private static final int SHARE_LEFT = 8;

  private final Lane lane;

  /** By row: whose it is. Little for each, since a step looks at thousands that no cache has. */
  private final int[] keys;

  /** The last batch that uses any row, and by row a bit: whether it uses this one. */
  private long lastBatch;

  private final long[] used;

  private final long firstStep;
  private final int rowInts;
  private @Nullable Place place;

  private RowCopy(Lane lane, int rows, int rowInts, long firstStep) {
    this.lane = lane;
    this.keys = new int[rows];
    this.used = new long[(rows + Long.SIZE - 1) / Long.SIZE];
    this.rowInts = rowInts;
    this.firstStep = firstStep;
    Arrays.fill(keys, NONE);
  }

  /** What finds a token of a head: there are at most 128 heads, and 2^24 positions. */
  static int key(int kvHead, int position) {
    return kvHead << 24 | position;
  }

  /**
   * The copy of a slot; null as long as there is none.
   *
   * @param rows that the slot has room for
   * @param rowInts ints of a row
   * @param step now; steps of a lane are told apart by it
   */
  static @Nullable RowCopy of(DeviceSlot slot, Lane lane, int rows, int rowInts, long step) {
    if (slot.copy() == null) {
      slot.attach(new RowCopy(lane, rows, rowInts, step));
    }
    if (!(slot.copy() instanceof RowCopy copy) || copy.lane != lane || copy.rowInts != rowInts) {
      return null;
    }
    return copy.place != null || copy.takePlace(step) ? copy : null;
  }

  private boolean takePlace(long step) {
    Arena arena = lane.arena;
    long bytes = (long) keys.length * rowInts * Integer.BYTES;
    if (step == firstStep || arena.bytesFree() - bytes < arena.bytesMax() / SHARE_LEFT) {
      return false;
    }
    try {
      place = Place.take(lane, bytes);
      return true;
    } catch (KvtierException full) {
      // The rows are sent each time, as they would be without a copy.
      return false;
    }
  }

  /** Whether a batch may use a row's place, which no other row of the batch does. */
  boolean claim(int row, long batch) {
    if (batch != lastBatch) {
      lastBatch = batch;
      Arrays.fill(used, 0);
    }
    long bit = 1L << row;
    if (row >= keys.length || (used[row / Long.SIZE] & bit) != 0) {
      return false;
    }
    used[row / Long.SIZE] |= bit;
    return true;
  }

  /** Whether the lane has it. */
  boolean has(int row, int key) {
    return keys[row] == key;
  }

  /** Notes that the lane has it. */
  void set(int row, int key) {
    keys[row] = key;
  }

  /** Where it is, or goes. */
  int firstInt(int row) {
    Place taken = place;
    if (taken == null) {
      throw new IllegalStateException("the copy has no place");
    }
    return taken.firstInt() + row * rowInts;
  }

  @Override
  public void release() {
    Place taken = place;
    if (taken != null) {
      place = null;
      taken.release();
    }
  }
}
