package io.kvtier.gpuworker.tailor;

import io.kvtier.gpuworker.device.LayerShape;
import java.util.Arrays;

/** One layer's keys and values in host memory, {@code [tokens][kvHeads][headDim]}. One thread. */
final class HostRows {
  private final int length;
  private float[] keys = new float[0];
  private float[] values = new float[0];

  /** Read by other threads too; one writes. */
  private volatile int tokens;

  HostRows(LayerShape shape) {
    this.length = shape.rowLength();
  }

  HostRows copy(LayerShape shape) {
    HostRows copy = new HostRows(shape);
    copy.keys = keys.clone();
    copy.values = values.clone();
    copy.tokens = tokens;
    return copy;
  }

  void append(float[] newKeys, float[] newValues, int count) {
    int end = (tokens + count) * length;
    if (keys.length < end) {
      keys = Arrays.copyOf(keys, end + end / 2);
      values = Arrays.copyOf(values, end + end / 2);
    }
    System.arraycopy(newKeys, 0, keys, tokens * length, count * length);
    System.arraycopy(newValues, 0, values, tokens * length, count * length);
    tokens = end / length;
  }

  int tokens() {
    return tokens;
  }

  float[] keys() {
    return keys;
  }

  float[] values() {
    return values;
  }

  /** Index of the first element of a head's row. */
  int at(int token, int kvHead, int headDim) {
    return token * length + kvHead * headDim;
  }
}
