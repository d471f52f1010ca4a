package io.kvtier.gpuworker.cpu;

import static java.nio.ByteOrder.LITTLE_ENDIAN;

import io.kvtier.codec.RawRows;
import io.kvtier.gpuworker.device.DeviceMemory;
import io.kvtier.gpuworker.device.DeviceSlot;
import io.kvtier.gpuworker.device.LayerShape;
import org.agrona.concurrent.UnsafeBuffer;

/**
 * Keys and values that are kept exactly: the sinks, and the window with the page that has not
 * filled yet. Rows lie as {@code [row][kvHeads][headDim]}, keys in the first half of each slot,
 * values in the second. Row 0..sinks-1 are the sinks once the window has moved on; until then the
 * window holds them too.
 */
final class ExactRows {
  private final LayerShape shape;
  private final int rowBytes;
  private final DeviceSlot sinks;
  private final DeviceSlot window;
  private int sinkCount;
  private int windowCount;

  ExactRows(LayerShape shape, DeviceMemory memory) {
    this.shape = shape;
    this.rowBytes = shape.rowLength() * shape.exactBytes();
    this.sinks = memory.allocate(Math.max(1, 2 * shape.sinkTokens() * rowBytes));
    this.window = allocateWindow(memory);
  }

  private DeviceSlot allocateWindow(DeviceMemory memory) {
    try {
      return memory.allocate(2 * shape.windowCapacity() * rowBytes);
    } catch (RuntimeException e) {
      sinks.release();
      throw e;
    }
  }

  /** A copy in memory of its own. */
  ExactRows copy(DeviceMemory memory) {
    ExactRows copy = new ExactRows(shape, memory);
    copy.sinks.buffer().putBytes(0, sinks.buffer(), 0, sinks.length());
    copy.window.buffer().putBytes(0, window.buffer(), 0, window.length());
    copy.sinkCount = sinkCount;
    copy.windowCount = windowCount;
    return copy;
  }

  /** Rows of the window; the last of them is the layer's last token. */
  int windowCount() {
    return windowCount;
  }

  int sinkCount() {
    return sinkCount;
  }

  int room() {
    return shape.windowCapacity() - windowCount;
  }

  long bytes() {
    return (long) sinks.length() + window.length();
  }

  /** Appends {@code tokens} rows, at most {@link #room()}, from row {@code from} of the arrays. */
  void append(float[] keys, float[] values, int from, int tokens) {
    int length = shape.rowLength();
    for (int t = 0; t < tokens; t++) {
      int source = (from + t) * length;
      put(window, 0, windowCount, shape.windowCapacity(), keys, source);
      put(window, 1, windowCount, shape.windowCapacity(), values, source);
      if (sinkCount < shape.sinkTokens()) {
        put(sinks, 0, sinkCount, shape.sinkTokens(), keys, source);
        put(sinks, 1, sinkCount, shape.sinkTokens(), values, source);
        sinkCount++;
      }
      windowCount++;
    }
  }

  /** Takes the sinks' rows of tokens that the window never had. */
  void restoreSinks(float[] keys, float[] values) {
    int length = shape.rowLength();
    for (int t = 0; t < shape.sinkTokens(); t++) {
      put(sinks, 0, t, shape.sinkTokens(), keys, t * length);
      put(sinks, 1, t, shape.sinkTokens(), values, t * length);
    }
    sinkCount = shape.sinkTokens();
  }

  /** Drops the window's oldest rows. */
  void dropOldest(int tokens) {
    UnsafeBuffer rows = window.buffer();
    int left = windowCount - tokens;
    int values = shape.windowCapacity() * rowBytes;
    rows.putBytes(0, rows, tokens * rowBytes, left * rowBytes);
    rows.putBytes(values, rows, values + tokens * rowBytes, left * rowBytes);
    windowCount = left;
  }

  /** Reads the window's oldest rows, {@code [tokens][kvHeads][headDim]}. */
  void readOldest(int tokens, float[] keys, float[] values) {
    int length = shape.rowLength();
    for (int t = 0; t < tokens; t++) {
      get(window, 0, t, shape.windowCapacity(), 0, keys, t * length, length);
      get(window, 1, t, shape.windowCapacity(), 0, values, t * length, length);
    }
  }

  int rowBytes() {
    return rowBytes;
  }

  /** Address of a head's keys of sink 0. */
  long sinkKeys(int kvHead) {
    return sinks.address() + headOffset(kvHead);
  }

  long sinkValues(int kvHead) {
    return sinkKeys(kvHead) + (long) shape.sinkTokens() * rowBytes;
  }

  /** Address of a head's keys of the window's oldest row. */
  long windowKeys(int kvHead) {
    return window.address() + headOffset(kvHead);
  }

  long windowValues(int kvHead) {
    return windowKeys(kvHead) + (long) shape.windowCapacity() * rowBytes;
  }

  private int headOffset(int kvHead) {
    return kvHead * shape.headDim() * shape.exactBytes();
  }

  void readSink(int row, int kvHead, float[] keys, float[] values, int at) {
    read(sinks, row, shape.sinkTokens(), kvHead, keys, values, at);
  }

  void readWindow(int row, int kvHead, float[] keys, float[] values, int at) {
    read(window, row, shape.windowCapacity(), kvHead, keys, values, at);
  }

  private void read(
      DeviceSlot slot, int row, int rows, int kvHead, float[] keys, float[] values, int at) {
    int headDim = shape.headDim();
    get(slot, 0, row, rows, kvHead * headDim, keys, at, headDim);
    get(slot, 1, row, rows, kvHead * headDim, values, at, headDim);
  }

  private void put(DeviceSlot slot, int half, int row, int rows, float[] source, int from) {
    int at = (half * rows + row) * rowBytes;
    int length = shape.rowLength();
    if (shape.exactBytes() == Short.BYTES) {
      RawRows.put(slot.buffer(), at, source, from, length);
    } else {
      for (int i = 0; i < length; i++) {
        slot.buffer().putFloat(at + i * Float.BYTES, source[from + i], LITTLE_ENDIAN);
      }
    }
  }

  private void get(
      DeviceSlot slot, int half, int row, int rows, int element, float[] out, int at, int length) {
    int from = (half * rows + row) * rowBytes + element * shape.exactBytes();
    if (shape.exactBytes() == Short.BYTES) {
      RawRows.get(slot.buffer(), from, out, at, length);
    } else {
      for (int i = 0; i < length; i++) {
        out[at + i] = slot.buffer().getFloat(from + i * Float.BYTES, LITTLE_ENDIAN);
      }
    }
  }

  void release() {
    sinks.release();
    window.release();
  }
}
