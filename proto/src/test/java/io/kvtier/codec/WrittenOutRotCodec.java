package io.kvtier.codec;

import static io.kvtier.page.PageLayout.TOKENS;

import java.util.Arrays;

/**
 * The encoder of the rot codecs' keys, written once more from FORMAT.md alone, with a mistake if
 * one is asked for: parity checks must see each of them.
 */
final class WrittenOutRotCodec implements HeadCodec {
  enum Mistake {
    NONE,
    PLANES_SWAPPED,
    THRESHOLD_OFF_BY_ONE_LEVEL,
    STRIDE_MISSING,
    PARTIAL_SUMS_IN_ORDER_OF_DIMENSIONS,
    TIE_TO_THE_SMALLER_CODE,
    MEAN_NOT_AS_STORED
  }

  private final HeadSide side;
  private final Mistake mistake;
  private final int d;
  private final RotLevels levels;
  private final float[] signs;

  WrittenOutRotCodec(HeadSide side, Mistake mistake) {
    this.side = side;
    this.mistake = mistake;
    this.d = side.headDim();
    this.levels = RotLevels.of(side.bits());
    this.signs = new float[d];
    for (int i = 0; i < d; i++) {
      long z = (i + 1) * 0x9E3779B97F4A7C15L;
      z = (z ^ z >>> 30) * 0xBF58476D1CE4E5B9L;
      z = (z ^ z >>> 27) * 0x94D049BB133111EBL;
      signs[i] = ((z ^ z >>> 31) & 1) == 0 ? 1 : -1;
    }
  }

  @Override
  public void encode(float[] rows, int at, int stride, int tokens, byte[] head) {
    Arrays.fill(head, side.planeAt(0), side.planeAt(0) + d * 8, (byte) 0);
    for (int plane = 1; plane < side.bits(); plane++) {
      Arrays.fill(head, side.planeAt(plane), side.planeAt(plane) + d * 8, (byte) 0);
    }
    Arrays.fill(head, side.scalesAt(), side.scalesAt() + 2 * TOKENS, (byte) 0);
    float[] mean = new float[d];
    for (int i = 0; i < d; i++) {
      float sum = 0;
      for (int t = 0; t < tokens; t++) {
        sum += rows[at + t * stride + i];
      }
      short stored = Float.floatToFloat16(sum / tokens);
      putHalf(head, side.meanAt() + 2 * i, stored);
      mean[i] = mistake == Mistake.MEAN_NOT_AS_STORED ? sum / tokens : Float.float16ToFloat(stored);
    }
    for (int t = 0; t < tokens; t++) {
      float[] y = new float[d];
      for (int i = 0; i < d; i++) {
        y[i] = (rows[at + t * stride + i] - mean[i]) * signs[i];
      }
      rotate(y);
      encodeToken(y, t, head);
    }
  }

  private void rotate(float[] y) {
    for (int begin = 0, block; begin < d; begin += block) {
      block = Integer.highestOneBit(d - begin);
      for (int s = 1; s < block; s *= 2) {
        if (mistake == Mistake.STRIDE_MISSING && s == 8) {
          continue;
        }
        for (int i = 0; i < block; i++) {
          if ((i & s) == 0) {
            float a = y[begin + i];
            float b = y[begin + i + s];
            y[begin + i] = a + b;
            y[begin + i + s] = a - b;
          }
        }
      }
      for (int i = 0; i < block; i++) {
        y[begin + i] *= (float) (1 / Math.sqrt(block));
      }
    }
  }

  private void encodeToken(float[] y, int t, byte[] head) {
    float[] squares = new float[d];
    for (int i = 0; i < d; i++) {
      squares[i] = y[i] * y[i];
    }
    float r = (float) Math.sqrt(sum(squares));
    if (r == 0) {
      return;
    }
    float toUnit = (float) Math.sqrt(d) / r;
    for (int i = 0; i < d; i++) {
      int code = code(y[i] * toUnit);
      squares[i] = levels.level(code) * levels.level(code);
      for (int plane = 0; plane < side.bits(); plane++) {
        int bit = code >> (side.bits() - 1 - plane) & 1;
        int to = mistake == Mistake.PLANES_SWAPPED && plane < 2 ? 1 - plane : plane;
        head[side.planeAt(to) + i / 8 * TOKENS + t] |= (byte) (bit << (i % 8));
      }
    }
    putHalf(
        head, side.scalesAt() + 2 * t, Float.floatToFloat16(r / (float) Math.sqrt(sum(squares))));
  }

  private int code(float u) {
    int code = 0;
    for (int k = 1; k < levels.count(); k++) {
      boolean off = mistake == Mistake.THRESHOLD_OFF_BY_ONE_LEVEL && k == levels.count() - 2;
      float threshold = levels.threshold(off ? k + 1 : k);
      boolean above = mistake == Mistake.TIE_TO_THE_SMALLER_CODE ? threshold < u : threshold <= u;
      code += above ? 1 : 0;
    }
    return code;
  }

  private float sum(float[] terms) {
    if (mistake == Mistake.PARTIAL_SUMS_IN_ORDER_OF_DIMENSIONS) {
      float sum = 0;
      for (float term : terms) {
        sum += term;
      }
      return sum;
    }
    float[] s = new float[16];
    for (int i = 0; i < terms.length; i++) {
      s[i % 16] += terms[i];
    }
    for (int half = 8; half >= 1; half /= 2) {
      for (int j = 0; j < half; j++) {
        s[j] += s[j + half];
      }
    }
    return s[0];
  }

  private static void putHalf(byte[] head, int at, short half) {
    head[at] = (byte) half;
    head[at + 1] = (byte) (half >> 8);
  }

  @Override
  public void decode(byte[] head, int tokens, float[] rows, int at, int stride) {
    throw new UnsupportedOperationException("an encoder only");
  }
}
