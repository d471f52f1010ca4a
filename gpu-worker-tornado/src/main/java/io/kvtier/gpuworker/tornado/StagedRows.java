package io.kvtier.gpuworker.tornado;

import static io.kvtier.page.PageLayout.TOKENS;
import static java.nio.ByteOrder.LITTLE_ENDIAN;

import io.kvtier.attention.GroupQuery;
import io.kvtier.gpuworker.core.HeadPolicy;
import io.kvtier.gpuworker.device.DeviceSlot;
import io.kvtier.gpuworker.device.LayerPass;
import io.kvtier.gpuworker.device.LayerShape;
import java.util.Arrays;
import java.util.List;
import org.agrona.DirectBuffer;
import org.jspecify.annotations.Nullable;
import uk.ac.manchester.tornado.api.types.arrays.IntArray;

/**
 * Rows of chosen tokens on their way to the device. Each head's go in batches of so many rows,
 * whatever comes when, so that its sums are always made in the same order. One pass.
 */
final class StagedRows {
  /** Most rows of a head's batch. */
  private static final int BATCH_ROWS = 512;

  private static final int LARGE_INTS = Lane.LARGE * WriteKernel.BLOCK;
  private static final int SMALL_INTS = Lane.SMALL * WriteKernel.BLOCK;

  private final TornadoLayer layer;
  private final LayerShape shape;
  private final StepInputs inputs;
  private final int rowInts;
  private final int batchRows;
  private final Head[] heads;

  /** What one head has given and not attended to. */
  private static final class Head {
    final int rowBytes;

    /** By index of the chosen token: where its row is. */
    @Nullable DeviceSlot[] slots = new DeviceSlot[0];

    int[] offsets = new int[0];
    int count;
    int taken;

    /** Rows copied, and their sketches and tokens, that wait for their batch to fill. */
    int[] rows = new int[0];

    int[] table = new int[0];
    int waiting;

    Head(int rowBytes) {
      this.rowBytes = rowBytes;
    }

    boolean ready(int batch) {
      return waiting == batch || (waiting > 0 && taken == count);
    }
  }

  StagedRows(TornadoLayer layer, StepInputs inputs, List<HeadPolicy> policies) {
    this.layer = layer;
    this.shape = layer.shape();
    this.inputs = inputs;
    this.heads = new Head[shape.kvHeads()];
    int most = 0;
    for (int head = 0; head < heads.length; head++) {
      heads[head] = new Head(policies.get(head).sketched() ? inputs.rowBytes(head) : 0);
      most = Math.max(most, heads[head].rowBytes);
    }
    this.rowInts = (most + Integer.BYTES - 1) / Integer.BYTES;
    int fit = LARGE_INTS / heads.length / (rowInts + RowsKernel.ROW_INTS + 1) & -TOKENS;
    this.batchRows = Math.clamp(fit, TOKENS, BATCH_ROWS);
  }

  /** Expects so many rows of each head. */
  void begin(int[] counts) {
    for (int head = 0; head < heads.length; head++) {
      Head own = heads[head];
      own.count = counts[head];
      own.taken = 0;
      own.waiting = 0;
      if (own.slots.length < own.count) {
        own.slots = new DeviceSlot[own.count + own.count / 2];
        own.offsets = new int[own.slots.length];
      }
      Arrays.fill(own.slots, null);
    }
  }

  void give(int kvHead, int index, DeviceSlot slot, int offset) {
    heads[kvHead].slots[index] = slot;
    heads[kvHead].offsets[index] = offset;
  }

  void forget() {
    for (Head head : heads) {
      Arrays.fill(head.slots, null);
    }
  }

  int attended(int kvHead) {
    return heads[kvHead].taken;
  }

  /** Copies what has come, as far as a batch has room. */
  void take(LayerPass pass) {
    for (int head = 0; head < heads.length; head++) {
      take(head, pass);
    }
  }

  private void take(int kvHead, LayerPass pass) {
    Head own = heads[kvHead];
    while (own.taken < own.count && own.waiting < batchRows) {
      DeviceSlot slot = own.slots[own.taken];
      if (slot == null) {
        return;
      }
      if (own.rows.length < (own.waiting + 1) * rowInts) {
        int room = Math.min(batchRows, Math.max(TOKENS, 2 * own.waiting));
        own.rows = Arrays.copyOf(own.rows, room * rowInts);
        own.table = Arrays.copyOf(own.table, room * RowsKernel.ROW_INTS);
      }
      copy(slot.buffer(), own.offsets[own.taken], own.rowBytes, own.rows, own.waiting * rowInts);
      int position = pass.chosenPosition(kvHead, own.taken);
      int at = own.waiting * RowsKernel.ROW_INTS;
      own.table[at + RowsKernel.ROW_SKETCH] = layer.sketchPlace(kvHead, position / TOKENS);
      own.table[at + RowsKernel.ROW_TOKEN] = position % TOKENS;
      own.slots[own.taken] = null;
      own.waiting++;
      own.taken++;
    }
  }

  private static void copy(DirectBuffer from, int offset, int bytes, int[] to, int at) {
    int whole = bytes / Integer.BYTES;
    for (int i = 0; i < whole; i++) {
      to[at + i] = from.getInt(offset + i * Integer.BYTES, LITTLE_ENDIAN);
    }
    if (bytes % Integer.BYTES != 0) {
      int last = 0;
      for (int i = whole * Integer.BYTES; i < bytes; i++) {
        last |= (from.getByte(offset + i) & 0xFF) << (i % Integer.BYTES * 8);
      }
      to[at + whole] = last;
    }
  }

  /** Whether a head has a batch to go. */
  boolean stageReady() {
    for (Head head : heads) {
      if (head.ready(batchRows)) {
        return true;
      }
    }
    return false;
  }

  /** Attends to the batches that are ready; on the lane's thread. */
  void execute(GroupQuery[] queries) {
    Lane lane = layer.lane();
    int slots = 0;
    int rows = 0;
    inputs.begin(layer.pages());
    for (int head = 0; head < heads.length; head++) {
      if (heads[head].ready(batchRows)) {
        int count = (heads[head].waiting + TOKENS - 1) / TOKENS;
        inputs.setSlots(head, slots, count);
        inputs.rows(head);
        slots += count;
        rows += heads[head].waiting;
      }
    }
    int table = slots * RowsKernel.SLOT_INTS;
    int data = table + rows * RowsKernel.ROW_INTS;
    boolean small = data + rows * rowInts <= SMALL_INTS;
    fill(small ? lane.smallStage : lane.largeStage, table, data);
    inputs.set(StepLayout.ROW_TABLE, table);
    inputs.set(StepLayout.ROW_DATA, data);
    inputs.set(StepLayout.ROW_INTS, rowInts);
    inputs.write(lane, slots);
    inputs.writeQueries(lane, queries);
    lane.execute(small ? Lane.Graph.ROWS_SMALL : Lane.Graph.ROWS_LARGE);
  }

  private void fill(IntArray stage, int table, int data) {
    int slot = 0;
    int row = 0;
    for (int head = 0; head < heads.length; head++) {
      Head own = heads[head];
      if (own.ready(batchRows)) {
        for (int first = 0; first < own.waiting; first += TOKENS) {
          int at = slot * RowsKernel.SLOT_INTS;
          stage.set(at + RowsKernel.SLOT_HEAD, head);
          stage.set(at + RowsKernel.SLOT_FIRST_ROW, row + first);
          stage.set(at + RowsKernel.SLOT_ROWS, Math.min(TOKENS, own.waiting - first));
          slot++;
        }
        Ints.copy(
            own.table, own.waiting * RowsKernel.ROW_INTS, stage, table + row * RowsKernel.ROW_INTS);
        Ints.copy(own.rows, own.waiting * rowInts, stage, data + row * rowInts);
        row += own.waiting;
        own.waiting = 0;
      }
    }
  }
}
