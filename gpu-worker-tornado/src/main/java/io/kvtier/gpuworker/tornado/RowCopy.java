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
  static final int NONE = -1;

  /** A row that is being sent. */
  private static final int COMING = -2;

  /** Of a lane, at least this part is left to what layers hold. */
  private static final int SHARE_LEFT = 8;

  private final Lane lane;

  /** By row: whose it is. Little for each, since a step looks at thousands that no cache has. */
  private final int[] keys;

  private final long firstStep;
  private final int rowInts;
  private @Nullable Place place;

  /** The place's first int, once there is one. */
  private int firstInt;

  /** The batch that rows are being sent with, and how many of this slot. */
  private long batch;

  private int coming;

  private RowCopy(Lane lane, int rows, int rowInts, long firstStep) {
    this.lane = lane;
    this.keys = new int[rows];
    this.rowInts = rowInts;
    this.firstStep = firstStep;
    Arrays.fill(keys, NONE);
  }

  /** What finds a token of a head: there are at most 128 heads, and 2^24 positions. */
  static int key(int kvHead, int position) {
    return kvHead << 24 | position;
  }

  static int headOf(int key) {
    return key >>> 24;
  }

  static int positionOf(int key) {
    return key & 0xFF_FFFF;
  }

  /**
   * The copy of a slot; null as long as there is none.
   *
   * @param rows that the slot has room for
   * @param rowInts ints of a row
   * @param step now; steps of a lane are told apart by it
   */
  static @Nullable RowCopy of(DeviceSlot slot, Lane lane, int rows, int rowInts, long step) {
    DeviceSlot.Copy made = slot.copy();
    if (made == null) {
      made = new RowCopy(lane, rows, rowInts, step);
      slot.attach(made);
    }
    if (!(made instanceof RowCopy copy) || copy.lane != lane || copy.rowInts != rowInts) {
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
      firstInt = place.firstInt();
      return true;
    } catch (KvtierException full) {
      // The rows are sent each time, as they would be without a copy.
      return false;
    }
  }

  /** Whether the lane has it. */
  boolean has(int row, int key) {
    return row < keys.length && keys[row] == key;
  }

  /** Whose row would give way to one that is sent; {@link #NONE}: nobody's. */
  int lostTo(int row) {
    return row < keys.length ? Math.max(NONE, keys[row]) : NONE;
  }

  /** Whether a row may be sent with a batch, which sends no other one there. */
  boolean send(int row, long withBatch) {
    if (batch != withBatch) {
      forgetComing();
      batch = withBatch;
    }
    if (row >= keys.length || keys[row] == COMING) {
      return false;
    }
    keys[row] = COMING;
    coming++;
    return true;
  }

  /** What was to come with a batch that was given up has not come. */
  private void forgetComing() {
    for (int row = 0; coming > 0; row++) {
      if (keys[row] == COMING) {
        keys[row] = NONE;
        coming--;
      }
    }
  }

  /** Notes that a row has come. */
  void came(int row, int key) {
    keys[row] = key;
    coming--;
  }

  /** Where it is, or goes. */
  int firstInt(int row) {
    return firstInt + row * rowInts;
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
