package io.kvtier.codec;

import io.kvtier.page.PageLayout;
import io.kvtier.page.Section;
import org.agrona.DirectBuffer;

/**
 * Decodes whole heads of verified pages back to rows. Any code bits are valid; scales, means and
 * ranges of a page that was not verified may decode to NaN or infinity. One instance serves one
 * thread at a time; it allocates nothing after construction.
 */
public final class PageDecoder {
  private final PageLayout layout;
  private final HeadCodec keyCodec;
  private final HeadCodec valueCodec;
  private final int keySections;
  private final int valueSections;
  private final byte[] headBytes;

  public PageDecoder(PageLayout layout) {
    this(layout, Vectors.enabled());
  }

  PageDecoder(PageLayout layout, boolean vectors) {
    this.layout = layout;
    HeadSide keys = HeadSide.keys(layout);
    HeadSide values = HeadSide.values(layout);
    this.keyCodec = HeadCodec.of(keys, vectors);
    this.valueCodec = HeadCodec.of(values, vectors);
    this.keySections = keys.sections();
    this.valueSections = values.sections();
    this.headBytes = new byte[layout.headLength() + HeadCodec.SLACK];
  }

  /**
   * Decodes one head's keys.
   *
   * @param tokens tokens of the page, 1..64
   * @param rows receives {@code [tokens][stride]}, of which {@code headDim} elements from {@code
   *     at} on are written
   */
  public void keys(
      DirectBuffer page, int offset, int head, int tokens, float[] rows, int at, int stride) {
    read(page, offset, head, keySections);
    keyCodec.decode(headBytes, tokens, rows, at, stride);
  }

  /** Decodes one head's values; parameters as for {@link #keys}. */
  public void values(
      DirectBuffer page, int offset, int head, int tokens, float[] rows, int at, int stride) {
    read(page, offset, head, valueSections);
    valueCodec.decode(headBytes, tokens, rows, at, stride);
  }

  private void read(DirectBuffer page, int offset, int head, int sections) {
    int from = offset + layout.headerLength() + head * layout.headLength();
    for (int left = sections; left != 0; left &= left - 1) {
      Section section = Section.ofId(Integer.numberOfTrailingZeros(left));
      int at = layout.offsetInHead(section);
      page.getBytes(from + at, headBytes, at, layout.length(section));
    }
  }
}
