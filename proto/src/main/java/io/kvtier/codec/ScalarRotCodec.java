package io.kvtier.codec;

import static io.kvtier.page.PageLayout.TOKENS;

import java.util.Arrays;

/**
 * The rot codecs in plain loops: the specification (FORMAT.md, "rot"). A vector's page mean is
 * subtracted, the rest is rotated ({@link Rotation}) and brought to unit variance by its norm; each
 * coordinate takes the nearest level ({@link RotLevels}). The scale restores the norm: r / ‖û‖.
 */
final class ScalarRotCodec implements HeadCodec {
  /** Partial sums of a norm: partial j is over the dimensions i with i mod 16 = j. */
  private static final int PARTIALS = 16;

  /** Steps from the middle to either end of what is left. */
  static final int REST_HALF = 8;

  static final int REST_MAX = 15;

  private final HeadSide side;
  private final int headDim;
  private final Rotation rotation;
  private final RotLevels levels;
  private final float[] mean;
  private final float[] rest;
  private final float[] partials = new float[PARTIALS];
  private final byte[] codes;

  /** {@code [headDim]}: codes of what the levels leave. */
  private final byte[] restCodes;

  ScalarRotCodec(HeadSide side) {
    this.side = side;
    this.headDim = side.headDim();
    this.rotation = new Rotation(headDim);
    this.levels = RotLevels.of(side.bits());
    this.mean = new float[headDim];
    this.rest = new float[headDim];
    this.codes = side.newCodes();
    this.restCodes = new byte[headDim];
  }

  @Override
  public void encode(float[] rows, int at, int stride, int tokens, byte[] head) {
    Arrays.fill(codes, (byte) 0);
    storeMean(rows, at, stride, tokens, head);
    for (int t = 0; t < TOKENS; t++) {
      float scale = 0;
      if (t < tokens) {
        for (int i = 0; i < headDim; i++) {
          rest[i] = rows[at + t * stride + i] - mean[i];
        }
        rotation.apply(rest, 0);
        scale = quantize(t * side.codeStride());
      }
      Halves.put(head, side.scalesAt() + t * Short.BYTES, scale);
      if (side.codec().hasRest()) {
        storeRest(t, tokens, head);
      }
    }
    ScalarCodes.pack(side, codes, head);
  }

  /**
   * Stores the page's mean in fp16 and keeps it as stored, so that its rounding ends up in the
   * codes, not in the error.
   */
  private void storeMean(float[] rows, int at, int stride, int tokens, byte[] head) {
    for (int i = 0; i < headDim; i++) {
      float sum = 0;
      for (int t = 0; t < tokens; t++) {
        sum += rows[at + t * stride + i];
      }
      mean[i] = sum / tokens;
    }
    Halves.put(head, side.meanAt(), mean, headDim);
    Halves.get(head, side.meanAt(), mean, headDim);
  }

  /** Codes the rotated rest; returns its scale. */
  private float quantize(int codesAt) {
    for (int i = 0; i < headDim; i++) {
      addPartial(i, rest[i] * rest[i]);
    }
    float norm = (float) Math.sqrt(sumOfPartials());
    if (norm == 0) {
      return 0;
    }
    float toUnit = (float) Math.sqrt(headDim) / norm;
    for (int i = 0; i < headDim; i++) {
      int code = codeOf(rest[i] * toUnit);
      codes[codesAt + i] = (byte) code;
      addPartial(i, levels.level(code) * levels.level(code));
    }
    return norm / (float) Math.sqrt(sumOfPartials());
  }

  /** Codes what a token's codes leave, of the scale as stored, in equal steps. */
  private void storeRest(int t, int tokens, byte[] head) {
    Arrays.fill(restCodes, (byte) 0);
    float step = 0;
    if (t < tokens) {
      float scale = Halves.get(head, side.scalesAt() + t * Short.BYTES);
      float widest = 0;
      for (int i = 0; i < headDim; i++) {
        rest[i] -= scale * levels.level(codes[t * side.codeStride() + i]);
        widest = Math.max(widest, Math.abs(rest[i]));
      }
      step = Float.float16ToFloat(Float.floatToFloat16(widest / REST_HALF));
    }
    Halves.put(head, side.restStepsAt() + t * Short.BYTES, step);
    for (int i = 0; step != 0 && i < headDim; i++) {
      restCodes[i] = (byte) Math.clamp((int) (rest[i] / step + REST_HALF), 0, REST_MAX);
    }
    ScalarCodes.packNibbles(headDim, restCodes, 0, head, side.restAt() + t * headDim / 2);
  }

  /** The number of thresholds at or below the coordinate: a tie takes the larger code. */
  private int codeOf(float coordinate) {
    int code = 0;
    while (code < levels.count() - 1 && levels.threshold(code + 1) <= coordinate) {
      code++;
    }
    return code;
  }

  private void addPartial(int dimension, float term) {
    int j = dimension % PARTIALS;
    partials[j] = dimension < PARTIALS ? term : partials[j] + term;
  }

  /** s_j + s_{j+8} for j < 8, then the same with 4, 2 and 1. */
  private float sumOfPartials() {
    for (int half = PARTIALS / 2; half > 0; half /= 2) {
      for (int j = 0; j < half; j++) {
        partials[j] += partials[j + half];
      }
    }
    return partials[0];
  }

  @Override
  public void decode(byte[] head, int tokens, float[] rows, int at, int stride) {
    ScalarCodes.unpack(side, head, tokens, codes);
    Halves.get(head, side.meanAt(), mean, headDim);
    for (int t = 0; t < tokens; t++) {
      float scale = Halves.get(head, side.scalesAt() + t * Short.BYTES);
      int row = at + t * stride;
      for (int i = 0; i < headDim; i++) {
        rows[row + i] = scale * levels.level(codes[t * side.codeStride() + i]);
      }
      if (side.codec().hasRest()) {
        addRest(head, t, rows, row);
      }
      rotation.invert(rows, row);
      for (int i = 0; i < headDim; i++) {
        rows[row + i] += mean[i];
      }
    }
  }

  private void addRest(byte[] head, int t, float[] rows, int row) {
    float step = Halves.get(head, side.restStepsAt() + t * Short.BYTES);
    ScalarCodes.unpackNibbles(headDim, head, side.restAt() + t * headDim / 2, restCodes, 0);
    for (int i = 0; i < headDim; i++) {
      rows[row + i] += step * (restCodes[i] - RotLevels.REST_CENTER);
    }
  }
}
