package io.kvtier.codec;

import static io.kvtier.page.PageLayout.TOKENS;

import java.util.Arrays;

/** raw16 with the vector unit: what {@link ScalarRawCodec} gives, to the bit. */
final class VectorRawCodec implements HeadCodec {
  private final HeadSide side;
  private final int rowLength;

  VectorRawCodec(HeadSide side) {
    this.side = side;
    this.rowLength = side.headDim() * Short.BYTES;
  }

  @Override
  public void encode(float[] rows, int at, int stride, int tokens, byte[] head) {
    for (int t = 0; t < tokens; t++) {
      RawKernels.encodeRow(
          rows, at + t * stride, side.headDim(), head, side.rawAt() + t * rowLength);
    }
    Arrays.fill(
        head, side.rawAt() + tokens * rowLength, side.rawAt() + TOKENS * rowLength, (byte) 0);
  }

  @Override
  public void decode(byte[] head, int tokens, float[] rows, int at, int stride) {
    for (int t = 0; t < tokens; t++) {
      RawKernels.decodeRow(
          head, side.rawAt() + t * rowLength, side.headDim(), rows, at + t * stride);
    }
  }
}
