package io.kvtier.codec;

import static io.kvtier.page.PageLayout.TOKENS;

import io.kvtier.KvtierException;
import io.kvtier.page.PageLayout;
import io.kvtier.page.Section;
import org.agrona.DirectBuffer;

/**
 * Decodes single rows of a head whose sections lie in two places, each a section set laid end to
 * end without padding ({@link PageLayout#offsetIn}), as on a worker: the sketch on the device, the
 * codes fetched. Gives what {@link PageDecoder} gives, to the bit. One thread; allocates nothing
 * after construction.
 */
public final class CodedRows {
  private final PageLayout layout;
  private final int sketchSet;
  private final int codesSet;
  private final HeadCodec keyCodec;
  private final HeadCodec valueCodec;
  private final int keySections;
  private final int valueSections;

  /** A head of one token: what concerns the row is copied to token 0. */
  private final byte[] headBytes;

  /**
   * Prepares for one layout.
   *
   * @throws KvtierException INVALID if a section of the layout is in neither set
   */
  public CodedRows(PageLayout layout, int sketchSet, int codesSet) {
    if ((layout.sections() & ~(sketchSet | codesSet)) != 0) {
      throw KvtierException.invalid(
          "sections %#x are in neither set (%#x, %#x)",
          layout.sections() & ~(sketchSet | codesSet), sketchSet, codesSet);
    }
    this.layout = layout;
    this.sketchSet = sketchSet & layout.sections();
    this.codesSet = codesSet & layout.sections();
    HeadSide keys = HeadSide.keys(layout);
    HeadSide values = HeadSide.values(layout);
    this.keyCodec = HeadCodec.of(keys, Vectors.enabled());
    this.valueCodec = HeadCodec.of(values, Vectors.enabled());
    this.keySections = keys.sections();
    this.valueSections = values.sections();
    this.headBytes = new byte[layout.headLength() + HeadCodec.SLACK];
  }

  /**
   * Decodes one token's key.
   *
   * @param sketch a head's sections of the first set, from {@code sketchAt} on
   * @param codes a head's sections of the second set, from {@code codesAt} on
   * @param token 0..63, of the page
   * @param row receives {@code headDim} elements from {@code at} on
   */
  public void key(
      DirectBuffer sketch,
      int sketchAt,
      DirectBuffer codes,
      int codesAt,
      int token,
      float[] row,
      int at) {
    read(keySections & sketchSet, sketchSet, sketch, sketchAt, token);
    read(keySections & ~sketchSet, codesSet, codes, codesAt, token);
    keyCodec.decode(headBytes, 1, row, at, 0);
  }

  /** Decodes one token's value; parameters as for {@link #key}. */
  public void value(
      DirectBuffer sketch,
      int sketchAt,
      DirectBuffer codes,
      int codesAt,
      int token,
      float[] row,
      int at) {
    read(valueSections & sketchSet, sketchSet, sketch, sketchAt, token);
    read(valueSections & ~sketchSet, codesSet, codes, codesAt, token);
    valueCodec.decode(headBytes, 1, row, at, 0);
  }

  private void read(int sections, int set, DirectBuffer from, int at, int token) {
    for (int left = sections; left != 0; left &= left - 1) {
      Section section = Section.ofId(Integer.numberOfTrailingZeros(left));
      readToken(section, from, at + layout.offsetIn(set, section), token);
    }
  }

  private void readToken(Section section, DirectBuffer from, int at, int token) {
    int to = layout.offsetInHead(section);
    int length = layout.length(section);
    switch (section) {
      case K_SIGN, K_COARSE, K_FINE -> {
        for (int row = 0; row < length; row += TOKENS) {
          headBytes[to + row] = from.getByte(at + row + token);
        }
      }
      case K_MEAN, V_MEAN, K_RANGES -> from.getBytes(at, headBytes, to, length);
      case K_SCALES,
          V_SCALES,
          V_CODES,
          V_RANGES,
          K_RAW,
          V_RAW,
          K_REST,
          K_REST_STEPS,
          V_REST,
          V_REST_STEPS -> {
        int rowLength = length / TOKENS;
        from.getBytes(at + token * rowLength, headBytes, to, rowLength);
      }
    }
  }
}
