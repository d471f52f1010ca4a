package io.kvtier.gpuworker.tornado;

import static java.nio.ByteOrder.LITTLE_ENDIAN;

import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.Arrays;
import org.agrona.DirectBuffer;

/**
 * Blocks on their way into a lane's resident buffer, gathered so that they go in few batches. The
 * blocks of one upload must go to different places. One thread at a time.
 */
final class Upload {
  private static final int BLOCK = WriteKernel.BLOCK;

  private int[] places = new int[64];
  private int[] data = new int[64 * BLOCK];
  private int count;

  /** Makes room for blocks that go to {@code place} and after; returns their first int. */
  private int add(int place, int blocks) {
    if (count + blocks > places.length) {
      int room = Math.max(count + blocks, 2 * places.length);
      places = Arrays.copyOf(places, room);
      data = Arrays.copyOf(data, room * BLOCK);
    }
    for (int i = 0; i < blocks; i++) {
      places[count + i] = place + i;
    }
    int first = count * BLOCK;
    count += blocks;
    return first;
  }

  /** Adds a buffer's bytes, a multiple of 64 of them. */
  void add(int place, DirectBuffer source, int length) {
    int to = add(place, length / (BLOCK * Integer.BYTES));
    for (int i = 0; i < length / Integer.BYTES; i++) {
      data[to + i] = source.getInt(i * Integer.BYTES, LITTLE_ENDIAN);
    }
  }

  /** Adds whole blocks of an array. */
  void add(int place, int[] source, int from, int blocks) {
    int to = add(place, blocks);
    System.arraycopy(source, from, data, to, blocks * BLOCK);
  }

  /**
   * Adds a row of exact elements.
   *
   * @param elementBytes 2 (bf16, of values that are such) or 4
   */
  void add(int place, float[] row, int from, int length, int elementBytes) {
    int perInt = Integer.BYTES / elementBytes;
    int blocks = (length + BLOCK * perInt - 1) / (BLOCK * perInt);
    int to = add(place, blocks);
    Arrays.fill(data, to, to + blocks * BLOCK, 0);
    for (int i = 0; i < length; i++) {
      int bits = Float.floatToRawIntBits(row[from + i]);
      if (elementBytes == Integer.BYTES) {
        data[to + i] = bits;
      } else {
        data[to + i / 2] |= (bits >>> 16) << (i % 2 * 16);
      }
    }
  }

  /** Writes everything, and is empty again. */
  void flush(Lane lane) {
    if (count > 0) {
      lane.on(() -> {
        for (int at = 0; at < count; ) {
          boolean small = count - at <= Lane.SMALL;
          int blocks = small ? count - at : Math.min(Lane.LARGE, count - at);
          MemorySegment toPlaces = (small ? lane.smallPlaces : lane.largePlaces).getSegment();
          MemorySegment toStage = (small ? lane.smallStage : lane.largeStage).getSegment();
          MemorySegment.copy(places, at, toPlaces, ValueLayout.JAVA_INT, 0, blocks);
          MemorySegment.copy(data, at * BLOCK, toStage, ValueLayout.JAVA_INT, 0, blocks * BLOCK);
          lane.writeCount.set(0, blocks);
          lane.execute(small ? Lane.Graph.WRITE_SMALL : Lane.Graph.WRITE_LARGE);
          at += blocks;
        }
        return this;
      });
      count = 0;
    }
  }
}
