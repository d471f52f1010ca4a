package io.kvtier.gpuworker.session;

import static io.kvtier.page.PageLayout.TOKENS;

import io.kvtier.gpuworker.device.DeviceSlot;
import java.util.Arrays;

/**
 * Rows to be fetched and where they go, in the order in which a tier answers: by page, KV head,
 * token. One thread at a time.
 */
final class RowBatch {
  private static final int TOKEN_BITS = 6;
  private static final int HEAD_BITS = 7;

  /** {@code [count]}: page, head, token in the upper half, the caller's number in the lower. */
  private long[] entries = new long[256];

  private DeviceSlot[] slots = new DeviceSlot[256];
  private int[] offsets = new int[256];
  private int count;

  void clear() {
    Arrays.fill(slots, 0, count, null);
    count = 0;
  }

  int count() {
    return count;
  }

  /** Adds a row, without a place to go to; {@code number} is the caller's. */
  void add(int position, int kvHead, int number) {
    if (count == entries.length) {
      entries = Arrays.copyOf(entries, 2 * count);
      slots = Arrays.copyOf(slots, 2 * count);
      offsets = Arrays.copyOf(offsets, 2 * count);
    }
    long place =
        (long) (position / TOKENS) << (HEAD_BITS + TOKEN_BITS)
            | kvHead << TOKEN_BITS
            | position % TOKENS;
    entries[count++] = place << Integer.SIZE | number;
  }

  /** Brings the rows into order; to be called before places are set. */
  void sort() {
    Arrays.sort(entries, 0, count);
  }

  /** Says where a row goes: it is the caller's to keep that there. */
  void place(int index, DeviceSlot slot, int offset) {
    slots[index] = slot;
    offsets[index] = offset;
  }

  /** Drops all rows from an index on. */
  void truncate(int newCount) {
    Arrays.fill(slots, newCount, count, null);
    count = newCount;
  }

  int page(int index) {
    return (int) (entries[index] >>> (Integer.SIZE + HEAD_BITS + TOKEN_BITS));
  }

  int kvHead(int index) {
    return (int) (entries[index] >>> (Integer.SIZE + TOKEN_BITS)) & ((1 << HEAD_BITS) - 1);
  }

  int token(int index) {
    return (int) (entries[index] >>> Integer.SIZE) & (TOKENS - 1);
  }

  int position(int index) {
    return page(index) * TOKENS + token(index);
  }

  int number(int index) {
    return (int) entries[index];
  }

  DeviceSlot slot(int index) {
    return slots[index];
  }

  int offset(int index) {
    return offsets[index];
  }
}
