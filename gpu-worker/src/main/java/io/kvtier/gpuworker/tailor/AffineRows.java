package io.kvtier.gpuworker.tailor;

import io.kvtier.gpuworker.device.LayerShape;
import io.kvtier.rpc.TailorFootprint;

/**
 * A dense layer's rows after min-max quantization: keys a channel at a time over groups of 64
 * tokens, values a token at a time over groups of 64 dimensions; the last rows stay exact until 128
 * of them have come together (KIVI, arXiv 2402.02750; TailorKV, section 4.2). One thread.
 */
final class AffineRows {
  private static final int RESIDUAL = TailorFootprint.DENSE_EXACT_TOKENS;
  private static final int GROUP = TailorFootprint.DENSE_GROUP;

  private final LayerShape shape;
  private final int steps;
  private final HostRows quantized;
  private int keysDone;
  private int valuesDone;

  /** Codes of so many bits, 1..8. */
  AffineRows(LayerShape shape, int bits) {
    this.shape = shape;
    this.steps = (1 << bits) - 1;
    this.quantized = new HostRows(shape);
  }

  /** Takes what has been appended to the exact rows, and quantizes what is due. */
  HostRows follow(HostRows exact) {
    int have = quantized.tokens();
    int row = shape.rowLength();
    int count = exact.tokens() - have;
    float[] newKeys = new float[count * row];
    float[] newValues = new float[count * row];
    System.arraycopy(exact.keys(), have * row, newKeys, 0, newKeys.length);
    System.arraycopy(exact.values(), have * row, newValues, 0, newValues.length);
    quantized.append(newKeys, newValues, count);
    for (; keysDone + RESIDUAL <= quantized.tokens(); keysDone += GROUP) {
      for (int channel = 0; channel < row; channel++) {
        quantize(quantized.keys(), keysDone * row + channel, row, GROUP);
      }
    }
    for (; valuesDone + RESIDUAL < quantized.tokens(); valuesDone++) {
      for (int from = 0; from < row; from += shape.headDim()) {
        for (int at = 0; at < shape.headDim(); at += GROUP) {
          int n = Math.min(GROUP, shape.headDim() - at);
          quantize(quantized.values(), valuesDone * row + from + at, 1, n);
        }
      }
    }
    return quantized;
  }

  private void quantize(float[] x, int at, int stride, int count) {
    float min = Float.POSITIVE_INFINITY;
    float max = Float.NEGATIVE_INFINITY;
    for (int i = 0; i < count; i++) {
      min = Math.min(min, x[at + i * stride]);
      max = Math.max(max, x[at + i * stride]);
    }
    float step = (max - min) / steps;
    for (int i = 0; step > 0 && i < count; i++) {
      x[at + i * stride] = min + step * Math.round((x[at + i * stride] - min) / step);
    }
  }
}
