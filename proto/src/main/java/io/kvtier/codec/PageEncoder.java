package io.kvtier.codec;

import io.kvtier.KvtierException;
import io.kvtier.page.PageIdentity;
import io.kvtier.page.PageLayout;
import io.kvtier.page.Pages;
import org.agrona.MutableDirectBuffer;

/**
 * Encodes pages. Holds scratch for one head: one instance serves one thread at a time. Equal input
 * gives equal bytes, whichever kernels {@link Vectors} has chosen.
 */
public final class PageEncoder {
  private final PageLayout layout;
  private final HeadCodec keyCodec;
  private final HeadCodec valueCodec;
  private final boolean vectors;
  private final byte[] headBytes;

  public PageEncoder(PageLayout layout) {
    this(layout, Vectors.enabled());
  }

  PageEncoder(PageLayout layout, boolean vectors) {
    this.layout = layout;
    this.keyCodec = HeadCodec.of(HeadSide.keys(layout), vectors);
    this.valueCodec = HeadCodec.of(HeadSide.values(layout), vectors);
    this.vectors = vectors;
    this.headBytes = new byte[layout.headLength() + HeadCodec.SLACK];
  }

  /**
   * Writes a whole sealed page.
   *
   * @param keys {@code [tokens][kvHeads][headDim]}, finite, at most 4096 in magnitude; read only
   * @param values same shape and bounds; read only
   * @param page receives {@code layout.pageLength()} bytes from {@code offset} on
   * @throws KvtierException INVALID if an element is NaN, infinite or too large, with its place;
   *     the page is as it was then
   */
  public void encode(
      PageIdentity identity, float[] keys, float[] values, MutableDirectBuffer page, int offset) {
    int tokens = identity.tokens();
    requireCodable("keys", keys, tokens);
    requireCodable("values", values, tokens);
    int headDim = layout.headDim();
    int stride = layout.kvHeads() * headDim;
    for (int head = 0; head < layout.kvHeads(); head++) {
      keyCodec.encode(keys, head * headDim, stride, tokens, headBytes);
      valueCodec.encode(values, head * headDim, stride, tokens, headBytes);
      int at = offset + layout.headerLength() + head * layout.headLength();
      page.putBytes(at, headBytes, 0, layout.headLength());
    }
    Pages.seal(page, offset, layout, identity);
  }

  private void requireCodable(String name, float[] rows, int tokens) {
    int rowLength = layout.kvHeads() * layout.headDim();
    int length = tokens * rowLength;
    if (rows.length < length) {
      throw KvtierException.invalid(
          "%s has %d elements; %d tokens need %d", name, rows.length, tokens, length);
    }
    if (vectors && RawKernels.areCodable(rows, length)) {
      return;
    }
    for (int i = 0; i < length; i++) {
      if (!(Math.abs(rows[i]) <= RawRows.MAGNITUDE_MAX)) {
        throw KvtierException.invalid(
            "%s[token %d][head %d][%d] is %s; it must be finite and at most %s in magnitude",
            name,
            i / rowLength,
            i % rowLength / layout.headDim(),
            i % layout.headDim(),
            rows[i],
            RawRows.MAGNITUDE_MAX);
      }
    }
  }
}
