package io.kvtier.codec;

import static io.kvtier.page.PageLayout.TOKENS;

import java.util.Arrays;
import org.agrona.concurrent.UnsafeBuffer;

/** raw16 in plain loops: rows of bf16 ({@link RawRows}). */
final class ScalarRawCodec implements HeadCodec {
  private final HeadSide side;
  private final int rowLength;
  private final UnsafeBuffer bytes = new UnsafeBuffer(0, 0);

  ScalarRawCodec(HeadSide side) {
    this.side = side;
    this.rowLength = side.headDim() * Short.BYTES;
  }

  @Override
  public void encode(float[] rows, int at, int stride, int tokens, byte[] head) {
    bytes.wrap(head);
    for (int t = 0; t < tokens; t++) {
      RawRows.put(bytes, side.rawAt() + t * rowLength, rows, at + t * stride, side.headDim());
    }
    Arrays.fill(
        head, side.rawAt() + tokens * rowLength, side.rawAt() + TOKENS * rowLength, (byte) 0);
  }

  @Override
  public void decode(byte[] head, int tokens, float[] rows, int at, int stride) {
    bytes.wrap(head);
    for (int t = 0; t < tokens; t++) {
      RawRows.get(bytes, side.rawAt() + t * rowLength, rows, at + t * stride, side.headDim());
    }
  }
}
