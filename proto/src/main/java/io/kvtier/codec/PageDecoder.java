package io.kvtier.codec;

import static io.kvtier.page.PageLayout.TOKENS;

import io.kvtier.page.Codec;
import io.kvtier.page.PageLayout;
import io.kvtier.page.Section;
import java.util.Arrays;
import org.agrona.DirectBuffer;

/**
 * Decodes whole heads of verified pages back to rows, in scalar code. One instance serves one
 * thread at a time.
 */
public final class PageDecoder {
  private final PageLayout layout;
  private final Rotation rotation;
  private final float[] levels;

  public PageDecoder(PageLayout layout) {
    this.layout = layout;
    this.rotation = new Rotation(layout.headDim());
    this.levels = new float[layout.headDim() * TOKENS];
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
    int headDim = layout.headDim();
    if (layout.keyCodec() == Codec.RAW16) {
      rawRows(page, offset + layout.offset(head, Section.K_RAW), tokens, rows, at, stride);
      return;
    }
    Rot4.keyLevels(
        page,
        offset + layout.offset(head, Section.K_SIGN),
        offset + layout.offset(head, Section.K_COARSE),
        page,
        offset + layout.offset(head, Section.K_FINE),
        headDim,
        levels);
    int scalesAt = offset + layout.offset(head, Section.K_SCALES);
    int meanAt = offset + layout.offset(head, Section.K_MEAN);
    for (int t = 0; t < tokens; t++) {
      int row = at + t * stride;
      float scale = Rot4.half(page, scalesAt, t);
      for (int i = 0; i < headDim; i++) {
        rows[row + i] = scale * levels[i * TOKENS + t];
      }
      rotation.invert(rows, row);
      addMean(page, meanAt, rows, row);
    }
  }

  /** Decodes one head's values; parameters as for {@link #keys}. */
  public void values(
      DirectBuffer page, int offset, int head, int tokens, float[] rows, int at, int stride) {
    int headDim = layout.headDim();
    if (layout.valueCodec() == Codec.RAW16) {
      rawRows(page, offset + layout.offset(head, Section.V_RAW), tokens, rows, at, stride);
      return;
    }
    int codesAt = offset + layout.offset(head, Section.V_CODES);
    int scalesAt = offset + layout.offset(head, Section.V_SCALES);
    int meanAt = offset + layout.offset(head, Section.V_MEAN);
    for (int t = 0; t < tokens; t++) {
      int row = at + t * stride;
      Arrays.fill(rows, row, row + headDim, 0);
      Rot4.addValue(page, codesAt, t, Rot4.half(page, scalesAt, t), rows, row, headDim);
      rotation.invert(rows, row);
      addMean(page, meanAt, rows, row);
    }
  }

  private void rawRows(DirectBuffer page, int from, int tokens, float[] rows, int at, int stride) {
    for (int t = 0; t < tokens; t++) {
      RawRows.get(
          page, from + t * layout.headDim() * Short.BYTES, rows, at + t * stride, layout.headDim());
    }
  }

  private void addMean(DirectBuffer page, int meanAt, float[] rows, int row) {
    for (int i = 0; i < layout.headDim(); i++) {
      rows[row + i] += Rot4.half(page, meanAt, i);
    }
  }
}
