package io.kvtier.codec;

import static io.kvtier.codec.RotKernels.PARTIALS;
import static io.kvtier.page.PageLayout.TOKENS;

import java.util.Arrays;

/**
 * The rot codecs with the vector unit: what {@link ScalarRotCodec} gives, to the bit. All vectors
 * of a page's head go through each step ({@link RotKernels}) together.
 */
final class VectorRotCodec implements HeadCodec {
  private final HeadSide side;
  private final int headDim;
  private final VectorCodes packing;
  private final float[] signs;
  private final float[] norms;
  private final float[] factors;
  private final float[] mean;
  private final float[] y;
  private final float[] partials = new float[TOKENS * PARTIALS];
  private final float[] sizes = new float[TOKENS];
  private final float[] levelSizes = new float[TOKENS];
  private final float[] toUnits = new float[TOKENS];
  private final float[] scales = new float[TOKENS];
  private final byte[] codes;

  /** By code: bits of the level. */
  private final int[] levels = new int[Lanes.TABLE];

  private final int[] tables;

  /** Codes of what the levels leave. */
  private final byte[] restCodes;

  /** By token: the widest of what is left, then the step. */
  private final float[] restSteps = new float[TOKENS];

  private final float[] zeros;
  private final float[] ones;

  VectorRotCodec(HeadSide side) {
    this.side = side;
    this.headDim = side.headDim();
    this.packing = new VectorCodes(side);
    Rotation rotation = new Rotation(headDim);
    this.signs = rotation.signs();
    this.norms = rotation.norms();
    this.factors = new float[headDim];
    for (int i = 0; i < headDim; i++) {
      factors[i] = norms[i] * signs[i];
    }
    this.mean = new float[headDim];
    this.y = new float[RotKernels.scratchLength(headDim)];
    this.codes = side.newCodes();
    RotLevels table = RotLevels.of(side.bits());
    for (int code = 0; code < table.count(); code++) {
      levels[code] = Float.floatToRawIntBits(table.level(code));
    }
    this.tables = tables(table);
    this.restCodes = side.codec().hasRest() ? side.newCodes() : new byte[0];
    this.zeros = new float[headDim];
    this.ones = new float[headDim];
    Arrays.fill(ones, 1);
  }

  /** The tables of {@link RotKernels#quantize} for some levels. */
  static int[] tables(RotLevels levels) {
    int[] tables = new int[RotKernels.TABLES_LENGTH];
    for (int code = 0; code < levels.count(); code++) {
      float level = levels.level(code);
      tables[RotKernels.SQUARES + code] = Float.floatToRawIntBits(level * level);
    }
    int upper = RotKernels.UPPER_CODES;
    Arrays.fill(tables, upper, upper + Lanes.TABLE, levels.count() / 2);
    for (int code = levels.count() / 2 + 1; code < levels.count(); code++) {
      float threshold = levels.threshold(code);
      int cell = (int) Math.rint(threshold * RotKernels.CELLS_PER_UNIT);
      tables[RotKernels.THRESHOLDS + cell] = Float.floatToRawIntBits(threshold);
      Arrays.fill(tables, upper + cell, upper + Lanes.TABLE, code);
    }
    return tables;
  }

  @Override
  public void encode(float[] rows, int at, int stride, int tokens, byte[] head) {
    if (tokens < TOKENS) {
      Arrays.fill(codes, (byte) 0);
      Arrays.fill(scales, 0);
    }
    RotKernels.gather(rows, at, stride, tokens, headDim, y);
    storeMean(tokens, head);
    RotKernels.within(y, mean, signs, headDim, tokens);
    RotKernels.between(y, headDim, tokens);
    for (int first = 0; first < PARTIALS; first += Lanes.LANES) {
      RotKernels.sumSquares(y, norms, headDim, tokens, first, partials);
    }
    RotKernels.addPartials(partials, tokens, sizes);
    for (int t = 0; t < tokens; t++) {
      sizes[t] = (float) Math.sqrt(sizes[t]);
      toUnits[t] = (float) Math.sqrt(headDim) / sizes[t];
    }
    for (int first = 0; first < PARTIALS; first += Lanes.LANES) {
      RotKernels.quantize(
          y,
          norms,
          headDim,
          tokens,
          toUnits,
          tables,
          side.bits(),
          codes,
          side.codeStride(),
          first,
          partials);
    }
    RotKernels.addPartials(partials, tokens, levelSizes);
    storeScales(tokens, head);
    packing.pack(codes, head);
    if (side.codec().hasRest()) {
      storeRest(tokens, head);
    }
  }

  /** Codes what the codes leave, of the scales as stored, in equal steps. */
  private void storeRest(int tokens, byte[] head) {
    Halves.get(head, side.scalesAt(), scales, tokens);
    Arrays.fill(restSteps, 0);
    int stride = side.codeStride();
    RotKernels.leave(y, norms, headDim, tokens, codes, stride, scales, levels, restSteps);
    for (int t = 0; t < tokens; t++) {
      restSteps[t] /= ScalarRotCodec.REST_HALF;
    }
    Halves.put(head, side.restStepsAt(), restSteps, TOKENS);
    Halves.get(head, side.restStepsAt(), restSteps, TOKENS);
    if (tokens < TOKENS) {
      Arrays.fill(restCodes, (byte) 0);
    }
    RotKernels.step(y, headDim, tokens, restSteps, restCodes, stride);
    for (int t = 0; t < tokens; t++) {
      if (restSteps[t] == 0) {
        // The kernel divided by it.
        Arrays.fill(restCodes, t * stride, (t + 1) * stride, (byte) 0);
      }
    }
    PackKernels.packNibbles(restCodes, stride, headDim, head, side.restAt());
  }

  private void storeMean(int tokens, byte[] head) {
    RotKernels.sumTokens(y, headDim, tokens, mean);
    for (int i = 0; i < headDim; i++) {
      mean[i] /= tokens;
    }
    Halves.put(head, side.meanAt(), mean, headDim);
    Halves.get(head, side.meanAt(), mean, headDim);
  }

  private void storeScales(int tokens, byte[] head) {
    for (int t = 0; t < tokens; t++) {
      scales[t] = sizes[t] / (float) Math.sqrt(levelSizes[t]);
      if (sizes[t] == 0) {
        // The kernel divided by it.
        Arrays.fill(codes, t * side.codeStride(), (t + 1) * side.codeStride(), (byte) 0);
        scales[t] = 0;
      }
    }
    Halves.put(head, side.scalesAt(), scales, TOKENS);
  }

  @Override
  public void decode(byte[] head, int tokens, float[] rows, int at, int stride) {
    packing.unpack(head, tokens, codes);
    Halves.get(head, side.meanAt(), mean, headDim);
    Halves.get(head, side.scalesAt(), scales, tokens);
    int codeStride = side.codeStride();
    if (side.codec().hasRest()) {
      Halves.get(head, side.restStepsAt(), restSteps, tokens);
      PackKernels.unpackNibbles(head, side.restAt(), tokens, restCodes, codeStride, headDim);
      RotKernels.restore(
          codes, restCodes, codeStride, tokens, scales, restSteps, levels, headDim, y);
      RotKernels.within(y, zeros, ones, headDim, tokens);
    } else {
      RotKernels.dequantize(codes, codeStride, tokens, scales, levels, headDim, y);
    }
    RotKernels.between(y, headDim, tokens);
    RotKernels.scatter(y, headDim, factors, mean, rows, at, stride, tokens);
  }
}
