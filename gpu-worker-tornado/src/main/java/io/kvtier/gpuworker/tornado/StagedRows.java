package io.kvtier.gpuworker.tornado;

import static io.kvtier.page.PageLayout.TOKENS;
import static java.nio.ByteOrder.LITTLE_ENDIAN;

import io.kvtier.attention.GroupQuery;
import io.kvtier.attention.Partial;
import io.kvtier.gpuworker.core.HeadPolicy;
import io.kvtier.gpuworker.device.DeviceSlot;
import io.kvtier.gpuworker.device.LayerShape;
import java.util.Arrays;
import java.util.List;
import org.agrona.DirectBuffer;
import org.jspecify.annotations.Nullable;
import uk.ac.manchester.tornado.api.types.arrays.IntArray;

/**
 * Rows of chosen tokens on their way to the device, as far as it has no copies of them. Each head's
 * go in batches of so many rows, whatever comes when, so that its sums are always made in the same
 * order. One pass.
 */
final class StagedRows {
  /** Most rows of a head's batch. */
  private static final int BATCH_ROWS = 1024;

  /** Ints of a large stage after those of the step. */
  private static final int LARGE_INTS = Lane.LARGE * WriteKernel.BLOCK - StepLayout.INTS;

  private static final int SMALL_INTS = Lane.ROWS_SMALL_INTS;

  private final TornadoLayer layer;
  private final LayerShape shape;
  private final List<StepInputs> ranges;

  /** Bytes from one row to the next in the slots that are given. */
  private final int slotRowBytes;

  /**
   * 2^32 by that, rounded up: rows are many, and a multiplication takes a fraction of a division.
   */
  private final long rowsAByte;

  /** Ints of the longest rows, as they are fetched. */
  private final int rowInts;

  private final int batchRows;

  /** Most rows of a slot: as few as leave no more partials than come back. */
  private final int slotRows;

  private final RowMerge merge;
  private final Head[] heads;
  private long step;
  private long batch;

  /** The slot of the row before, and what the lane has of it: rows of one slot come in runs. */
  private @Nullable DeviceSlot lastSlot;

  private @Nullable RowCopy lastCopy;

  /** What one head has given and not attended to. */
  private static final class Head {
    /** Bytes of a row as it was fetched, and where in its place in the slot they begin. */
    final int rowBytes;

    final int fetchedAt;

    /** By index of the chosen token: where its row is. */
    @Nullable DeviceSlot[] slots = new DeviceSlot[0];

    int[] offsets = new int[0];
    int count;
    int taken;

    // By row that waits for the batch to fill.

    /** {@code [rows][ROW_INTS]}; places of rows that are sent are put in at last. */
    int[] table = new int[0];

    /** By index of the chosen token. */
    int[] positions = new int[0];

    int waiting;

    /** Its partials, of the batch that was attended to last. */
    int firstSlot;

    int slotCount;

    // By row that the lane has not.

    /** {@code [sent][1 + rowInts]}. */
    int[] rows = new int[0];

    /** Which of those that wait it is. */
    int[] sentRows = new int[0];

    /** Where it will be kept; null: it goes through the lane's passage. */
    @Nullable RowCopy[] copies = new RowCopy[0];

    int[] copyRows = new int[0];
    int[] keys = new int[0];
    int sent;

    Head(int rowBytes, int fetchedAt) {
      this.rowBytes = rowBytes;
      this.fetchedAt = fetchedAt;
    }

    boolean ready(int batch) {
      return waiting == batch || (waiting > 0 && taken == count);
    }
  }

  StagedRows(TornadoLayer layer, List<StepInputs> ranges, List<HeadPolicy> policies) {
    this.layer = layer;
    this.shape = layer.shape();
    this.ranges = ranges;
    StepInputs inputs = ranges.getFirst();
    this.heads = new Head[shape.kvHeads()];
    int most = 0;
    for (int head = 0; head < heads.length; head++) {
      boolean sketched = policies.get(head).sketched();
      int fetchedAt = sketched ? shape.rowForm().fetchedAt(policies.get(head).residence()) : 0;
      heads[head] = new Head(sketched ? inputs.rowBytes(head) : 0, fetchedAt);
      most = Math.max(most, heads[head].rowBytes);
    }
    this.slotRowBytes = shape.rowForm().bytes();
    this.rowsAByte = (1L << 32) / slotRowBytes + 1;
    this.rowInts = (most + Integer.BYTES - 1) / Integer.BYTES;
    int fit = LARGE_INTS / heads.length / (1 + rowInts + RowsKernel.ROW_INTS + 1) & -TOKENS;
    this.batchRows = Math.clamp(fit, TOKENS, BATCH_ROWS);
    int partials = inputs.paddedQueries() * StepLayout.partialLength(shape.headDim());
    int headSlots = layer.lane().rowPartials.getSize() / partials;
    this.slotRows = ((batchRows + headSlots - 1) / headSlots + TOKENS - 1) & -TOKENS;
    this.merge = new RowMerge(shape);
  }

  /**
   * Expects so many rows of each head.
   *
   * @param positions {@code [kvHeads]}, by index of the chosen token; they stay as they are
   */
  void begin(int[] counts, int[][] positions) {
    step = layer.lane().nextBatch();
    batch = step;
    for (int head = 0; head < heads.length; head++) {
      Head own = heads[head];
      own.count = counts[head];
      own.positions = positions[head];
      int room = Math.min(own.count, batchRows) * RowsKernel.ROW_INTS;
      own.table = own.table.length < room ? new int[room] : own.table;
      own.taken = 0;
      own.waiting = 0;
      own.sent = 0;
      if (own.slots.length < own.count) {
        own.slots = new DeviceSlot[own.count + own.count / 2];
        own.offsets = new int[own.slots.length];
      }
    }
    forget();
  }

  /** Takes a row at once if it is the next, and there is room: most come so. */
  void give(int kvHead, int index, DeviceSlot slot, int offset) {
    Head own = heads[kvHead];
    if (index == own.taken && own.waiting < batchRows) {
      add(own, kvHead, slot, offset);
    } else {
      own.slots[index] = slot;
      own.offsets[index] = offset;
    }
  }

  void forget() {
    for (Head head : heads) {
      Arrays.fill(head.slots, null);
    }
    lastSlot = null;
    lastCopy = null;
  }

  int attended(int kvHead) {
    return heads[kvHead].taken;
  }

  /** Copies what has come, as far as a batch has room. */
  void take() {
    for (int head = 0; head < heads.length; head++) {
      take(head);
    }
  }

  private void take(int kvHead) {
    Head own = heads[kvHead];
    while (own.taken < own.count && own.waiting < batchRows) {
      DeviceSlot slot = own.slots[own.taken];
      if (slot == null) {
        return;
      }
      own.slots[own.taken] = null;
      add(own, kvHead, slot, own.offsets[own.taken]);
    }
  }

  private void reserveSent(Head own) {
    if (own.keys.length == own.sent) {
      int room = Math.min(batchRows, Math.max(TOKENS, 2 * own.sent));
      own.rows = Arrays.copyOf(own.rows, room * (1 + rowInts));
      own.sentRows = Arrays.copyOf(own.sentRows, room);
      own.copies = Arrays.copyOf(own.copies, room);
      own.copyRows = Arrays.copyOf(own.copyRows, room);
      own.keys = Arrays.copyOf(own.keys, room);
    }
  }

  /** Adds the next row to the batch; copies it unless the lane has it. */
  private void add(Head own, int kvHead, DeviceSlot slot, int offset) {
    if (slot != lastSlot) {
      lastSlot = slot;
      lastCopy = RowCopy.of(slot, layer.lane(), slot.length() / slotRowBytes, rowInts, step);
    }
    RowCopy copy = lastCopy;
    int row = (int) ((offset * rowsAByte) >>> Integer.SIZE);
    int position = own.positions[own.taken];
    int key = RowCopy.key(kvHead, position);
    int at = own.waiting * RowsKernel.ROW_INTS;
    if (copy != null && copy.has(row, key)) {
      own.table[at + RowsKernel.ROW_POSITION] = position;
      own.table[at + RowsKernel.ROW_PLACE] = copy.firstInt(row);
    } else {
      own.table[at + RowsKernel.ROW_POSITION] = position | RowsKernel.SENT;
      send(own, slot, offset, copy, row, key);
    }
    own.waiting++;
    own.taken++;
  }

  private void send(
      Head own, DeviceSlot slot, int offset, @Nullable RowCopy copy, int row, int key) {
    reserveSent(own);
    int at = own.sent * (1 + rowInts) + 1;
    copy(slot.buffer(), offset + own.fetchedAt, own.rowBytes, own.rows, at);
    own.sentRows[own.sent] = own.waiting;
    boolean kept = copy != null && !isWaiting(copy.lostTo(row)) && copy.send(row, batch);
    own.copies[own.sent] = kept ? copy : null;
    own.copyRows[own.sent] = row;
    own.keys[own.sent] = key;
    own.sent++;
  }

  /** Whether a row that the lane has is one of those that wait: no other must take its place. */
  private boolean isWaiting(int key) {
    if (key == RowCopy.NONE) {
      return false;
    }
    Head own = heads[RowCopy.headOf(key)];
    int from = own.taken - own.waiting;
    return Arrays.binarySearch(own.positions, from, own.taken, RowCopy.positionOf(key)) >= 0;
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

  /** Attends to the batches that are ready, and merges what comes of it; on the lane's thread. */
  void execute(GroupQuery[] queries, Partial[] into) {
    for (StepInputs range : ranges) {
      execute(range, queries, into);
    }
    batch = layer.lane().nextBatch();
  }

  private void execute(StepInputs inputs, GroupQuery[] queries, Partial[] into) {
    Lane lane = layer.lane();
    int slots = 0;
    int rows = 0;
    int sent = 0;
    inputs.begin(layer.pages());
    for (int head = inputs.firstHead(); head < inputs.endHead(); head++) {
      heads[head].slotCount = 0;
      if (heads[head].ready(batchRows)) {
        int count = (heads[head].waiting + slotRows - 1) / slotRows;
        heads[head].firstSlot = slots;
        heads[head].slotCount = count;
        inputs.rows(head);
        slots += count;
        rows += heads[head].waiting;
        sent += heads[head].sent;
      }
    }
    if (slots == 0) {
      return;
    }
    int table = StepLayout.INTS + slots * RowsKernel.SLOT_INTS;
    int data = table + rows * RowsKernel.ROW_INTS;
    boolean small = data + sent * (1 + rowInts) <= SMALL_INTS;
    IntArray stage = small ? lane.rowsSmall : lane.largeStage;
    fill(inputs, stage, table, data);
    inputs.set(StepLayout.ROW_TABLE, table);
    inputs.set(StepLayout.ROW_INTS, rowInts);
    inputs.write(lane, stage, slots);
    inputs.writeQueries(lane, queries);
    var _ = lane.execute(small ? Lane.Graph.ROWS_SMALL : Lane.Graph.ROWS_LARGE);
    for (int head = inputs.firstHead(); head < inputs.endHead(); head++) {
      if (heads[head].ready(batchRows)) {
        noteCopies(heads[head]);
      }
    }
    for (int head = inputs.firstHead(); head < inputs.endHead(); head++) {
      Head own = heads[head];
      if (own.slotCount > 0) {
        merge.merge(
            lane.rowPartials,
            own.firstSlot,
            own.slotCount,
            inputs.blocks(),
            queries[head],
            into,
            head * shape.group());
      }
    }
  }

  private void fill(StepInputs inputs, IntArray stage, int table, int data) {
    int slot = 0;
    int row = 0;
    int sent = 0;
    for (int head = inputs.firstHead(); head < inputs.endHead(); head++) {
      Head own = heads[head];
      if (own.ready(batchRows)) {
        for (int first = 0; first < own.waiting; first += slotRows) {
          int at = StepLayout.INTS + slot * RowsKernel.SLOT_INTS;
          stage.set(at + RowsKernel.SLOT_HEAD, head - inputs.firstHead());
          stage.set(at + RowsKernel.SLOT_FIRST_ROW, row + first);
          stage.set(at + RowsKernel.SLOT_ROWS, Math.min(slotRows, own.waiting - first));
          slot++;
        }
        int from = data + sent * (1 + rowInts);
        address(own, row, from);
        Ints.copy(
            own.table, own.waiting * RowsKernel.ROW_INTS, stage, table + row * RowsKernel.ROW_INTS);
        Ints.copy(own.rows, own.sent * (1 + rowInts), stage, from);
        row += own.waiting;
        sent += own.sent;
      }
    }
  }

  /** Says where in the stage a head's rows begin, and where each of them goes. */
  private void address(Head own, int firstRow, int data) {
    int passage = layer.lane().passage().firstInt();
    for (int i = 0; i < own.sent; i++) {
      int row = own.sentRows[i];
      RowCopy copy = own.copies[i];
      own.rows[i * (1 + rowInts)] =
          copy == null ? passage + (firstRow + row) * rowInts : copy.firstInt(own.copyRows[i]);
      own.table[row * RowsKernel.ROW_INTS + RowsKernel.ROW_PLACE] = data + i * (1 + rowInts);
    }
  }

  /** Notes what the lane has now, which it had not before it was run. */
  private static void noteCopies(Head own) {
    for (int i = 0; i < own.sent; i++) {
      RowCopy copy = own.copies[i];
      if (copy != null) {
        copy.came(own.copyRows[i], own.keys[i]);
      }
    }
    Arrays.fill(own.copies, 0, own.sent, null);
    own.waiting = 0;
    own.sent = 0;
  }
}
