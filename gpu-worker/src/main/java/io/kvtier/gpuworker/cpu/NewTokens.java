package io.kvtier.gpuworker.cpu;

import static java.nio.ByteOrder.LITTLE_ENDIAN;

import io.kvtier.gpuworker.device.LayerShape;
import java.nio.ByteBuffer;
import org.agrona.BufferUtil;
import org.agrona.concurrent.UnsafeBuffer;

/**
 * The tokens of a step that are not in the layer yet, off-heap for the kernels: {@code
 * [2][count][kvHeads][headDim]} fp32, keys then values. One thread writes; its tasks read.
 */
final class NewTokens {
  private static final int ALIGNMENT = 64;

  private final LayerShape shape;
  private UnsafeBuffer buffer = new UnsafeBuffer(BufferUtil.allocateDirectAligned(64, ALIGNMENT));
  private int count;

  NewTokens(LayerShape shape) {
    this.shape = shape;
  }

  /** Takes {@code count} tokens of both arrays. */
  void load(float[] keys, float[] values, int count) {
    this.count = count;
    int length = count * shape.rowLength();
    int bytes = 2 * length * Float.BYTES;
    if (buffer.capacity() < bytes) {
      ByteBuffer room = BufferUtil.allocateDirectAligned(2 * bytes, ALIGNMENT);
      buffer = new UnsafeBuffer(room);
    }
    for (int i = 0; i < length; i++) {
      buffer.putFloat(i * Float.BYTES, keys[i], LITTLE_ENDIAN);
      buffer.putFloat((length + i) * Float.BYTES, values[i], LITTLE_ENDIAN);
    }
  }

  int count() {
    return count;
  }

  int rowBytes() {
    return shape.rowLength() * Float.BYTES;
  }

  /** Address of a head's keys of the first token. */
  long keys(int kvHead) {
    return buffer.addressOffset() + (long) kvHead * shape.headDim() * Float.BYTES;
  }

  long values(int kvHead) {
    return keys(kvHead) + (long) count * rowBytes();
  }
}
