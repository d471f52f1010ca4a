package io.kvtier.codec;

import static io.kvtier.page.PageLayout.TOKENS;

import io.kvtier.page.PageLayout;
import java.util.Arrays;

/** The affine codecs with the vector unit: what {@link ScalarAffineCodec} gives, to the bit. */
final class VectorAffineCodec implements HeadCodec {
  private final HeadSide side;
  private final int headDim;
  private final int codeMax;
  private final int groups;
  private final VectorCodes packing;
  private final byte[] codes;

  /** Of keys {@code [headDim]}, of values {@code [64][groups]}: minima, then zeros. */
  private final float[] zeros;

  /** Likewise: maxima, then steps. */
  private final float[] steps;

  VectorAffineCodec(HeadSide side) {
    this.side = side;
    this.headDim = side.headDim();
    this.codeMax = (1 << side.bits()) - 1;
    this.groups = PageLayout.rangeGroups(headDim);
    this.packing = new VectorCodes(side);
    this.codes = side.newCodes();
    int ranges = side.isKeys() ? headDim : TOKENS * groups;
    this.zeros = new float[ranges];
    this.steps = new float[ranges];
  }

  @Override
  public void encode(float[] rows, int at, int stride, int tokens, byte[] head) {
    if (tokens < TOKENS) {
      Arrays.fill(codes, (byte) 0);
    }
    int ranges = side.isKeys() ? headDim : tokens * groups;
    if (side.isKeys()) {
      AffineKernels.keyExtremes(rows, at, stride, tokens, headDim, zeros, steps);
    } else {
      AffineKernels.valueExtremes(rows, at, stride, tokens, headDim, zeros, steps);
    }
    for (int i = 0; i < ranges; i++) {
      steps[i] = (steps[i] - zeros[i]) / codeMax;
      zeros[i] += 0f;
    }
    if (side.isKeys()) {
      Halves.put(head, side.rangesAt(), zeros, headDim);
      Halves.put(head, side.rangesAt() + headDim * Short.BYTES, steps, headDim);
    } else {
      storeValueRanges(ranges, head);
    }
    loadRanges(head, ranges);
    if (side.isKeys()) {
      AffineKernels.quantizeKeys(
          rows, at, stride, tokens, headDim, zeros, steps, codeMax, codes, side.codeStride());
    } else {
      AffineKernels.quantizeValues(
          rows, at, stride, tokens, headDim, zeros, steps, codeMax, codes, side.codeStride());
    }
    packing.pack(codes, head);
  }

  private void storeValueRanges(int ranges, byte[] head) {
    for (int i = 0; i < ranges; i++) {
      Halves.put(head, side.rangesAt() + 2 * i * Short.BYTES, zeros[i]);
      Halves.put(head, side.rangesAt() + (2 * i + 1) * Short.BYTES, steps[i]);
    }
    int end = side.rangesAt() + TOKENS * groups * 2 * Short.BYTES;
    Arrays.fill(head, side.rangesAt() + ranges * 2 * Short.BYTES, end, (byte) 0);
  }

  private void loadRanges(byte[] head, int ranges) {
    if (side.isKeys()) {
      Halves.get(head, side.rangesAt(), zeros, headDim);
      Halves.get(head, side.rangesAt() + headDim * Short.BYTES, steps, headDim);
      return;
    }
    for (int i = 0; i < ranges; i++) {
      zeros[i] = Halves.get(head, side.rangesAt() + 2 * i * Short.BYTES);
      steps[i] = Halves.get(head, side.rangesAt() + (2 * i + 1) * Short.BYTES);
    }
  }

  @Override
  public void decode(byte[] head, int tokens, float[] rows, int at, int stride) {
    packing.unpack(head, tokens, codes);
    if (side.isKeys()) {
      loadRanges(head, headDim);
      AffineKernels.decodeKeys(
          codes, side.codeStride(), headDim, zeros, steps, rows, at, stride, tokens);
    } else {
      loadRanges(head, tokens * groups);
      AffineKernels.decodeValues(
          codes, side.codeStride(), headDim, zeros, steps, rows, at, stride, tokens);
    }
  }
}
