package io.kvtier.codec;

import static io.kvtier.page.PageLayout.RANGE_GROUP;
import static io.kvtier.page.PageLayout.TOKENS;

import io.kvtier.page.PageLayout;
import java.util.Arrays;

/**
 * The affine codecs in plain loops: the specification (FORMAT.md, "affine"). Equal steps from the
 * least to the greatest element of a range, as in KIVI (arXiv 2402.02750) and TailorKV: keys over a
 * page's tokens per channel, values over groups of 64 dimensions per token.
 */
final class ScalarAffineCodec implements HeadCodec {
  private final HeadSide side;
  private final int headDim;
  private final int codeMax;
  private final int groups;
  private final byte[] codes;

  ScalarAffineCodec(HeadSide side) {
    this.side = side;
    this.headDim = side.headDim();
    this.codeMax = (1 << side.bits()) - 1;
    this.groups = PageLayout.rangeGroups(headDim);
    this.codes = side.newCodes();
  }

  @Override
  public void encode(float[] rows, int at, int stride, int tokens, byte[] head) {
    Arrays.fill(codes, (byte) 0);
    if (side.isKeys()) {
      for (int i = 0; i < headDim; i++) {
        // One channel of all tokens: elements a stride apart.
        encodeRange(
            rows, at + i, stride, tokens, i, side.codeStride(), head, zeroAt(0, i), stepAt(0, i));
      }
    } else {
      Arrays.fill(
          head, side.rangesAt(), side.rangesAt() + TOKENS * groups * 2 * Short.BYTES, (byte) 0);
      for (int t = 0; t < tokens; t++) {
        for (int i = 0; i < headDim; i += RANGE_GROUP) {
          int count = Math.min(RANGE_GROUP, headDim - i);
          int codesAt = t * side.codeStride() + i;
          encodeRange(
              rows, at + t * stride + i, 1, count, codesAt, 1, head, zeroAt(t, i), stepAt(t, i));
        }
      }
    }
    ScalarCodes.pack(side, codes, head);
  }

  private int zeroAt(int token, int dimension) {
    return side.isKeys()
        ? side.rangesAt() + dimension * Short.BYTES
        : side.rangesAt() + (token * groups + dimension / RANGE_GROUP) * 2 * Short.BYTES;
  }

  private int stepAt(int token, int dimension) {
    return zeroAt(token, dimension) + (side.isKeys() ? headDim : 1) * Short.BYTES;
  }

  /** Codes the elements of one range, {@code every} apart, and stores its zero and step. */
  private void encodeRange(
      float[] x,
      int from,
      int every,
      int count,
      int codesAt,
      int codesEvery,
      byte[] head,
      int zeroAt,
      int stepAt) {
    float min = x[from];
    float max = x[from];
    for (int k = 1; k < count; k++) {
      float element = x[from + k * every];
      min = element < min ? element : min;
      max = element > max ? element : max;
    }
    // Adding +0 makes -0 +0, whichever zero a search came upon first.
    Halves.put(head, zeroAt, min + 0f);
    Halves.put(head, stepAt, (max - min) / codeMax);
    float zero = Halves.get(head, zeroAt);
    float step = Halves.get(head, stepAt);
    for (int k = 0; k < count; k++) {
      codes[codesAt + k * codesEvery] = codeOf(x[from + k * every], zero, step);
    }
  }

  private byte codeOf(float element, float zero, float step) {
    if (step == 0) {
      return 0;
    }
    return (byte) Math.clamp(Math.rint((element - zero) / step), 0, codeMax);
  }

  @Override
  public void decode(byte[] head, int tokens, float[] rows, int at, int stride) {
    ScalarCodes.unpack(side, head, tokens, codes);
    for (int t = 0; t < tokens; t++) {
      for (int i = 0; i < headDim; i++) {
        float zero = Halves.get(head, zeroAt(t, i));
        float step = Halves.get(head, stepAt(t, i));
        rows[at + t * stride + i] = zero + step * codes[t * side.codeStride() + i];
      }
    }
  }
}
