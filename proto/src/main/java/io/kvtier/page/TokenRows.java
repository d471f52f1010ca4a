package io.kvtier.page;

import static io.kvtier.page.PageLayout.TOKENS;

import io.kvtier.KvtierException;
import org.agrona.DirectBuffer;
import org.agrona.MutableDirectBuffer;

/**
 * Rows: what a set of sections of one head says of one token, taken out of a page and put back into
 * sections. A row is the sections in order of their ids without padding: of key planes the token's
 * byte of every row of the plane, of the others the token's own row (FORMAT.md, "Rows"). Immutable,
 * safe for any number of threads; allocates nothing after construction.
 */
public final class TokenRows {
  /** Sections that say something of each token. */
  private static final int BY_TOKEN =
      Section.set(
          Section.K_SIGN,
          Section.K_COARSE,
          Section.K_FINE,
          Section.K_SCALES,
          Section.V_CODES,
          Section.V_SCALES,
          Section.K_RAW,
          Section.V_RAW,
          Section.V_RANGES,
          Section.K_REST,
          Section.K_REST_STEPS,
          Section.V_REST,
          Section.V_REST_STEPS);

  private static final int PLANES = Section.set(Section.K_SIGN, Section.K_COARSE, Section.K_FINE);

  private final PageLayout layout;
  private final int sectionSet;
  private final int length;

  /** {@code [sections of the set]}, in order of their ids. */
  private final Section[] sections;

  /** Bytes of each section in a row. */
  private final int[] lengths;

  /** Where each section begins if the set is laid end to end. */
  private final int[] offsets;

  /**
   * Rows of a set of sections.
   *
   * @throws KvtierException INVALID if a section is not in the layout or not of single tokens, or
   *     if there is none
   */
  public TokenRows(PageLayout layout, int sectionSet) {
    if (sectionSet == 0 || (sectionSet & ~(layout.sections() & BY_TOKEN)) != 0) {
      throw KvtierException.invalid(
          "sections is %#x; rows are made of some of %#x in a page of codecs %s, %s",
          sectionSet, layout.sections() & BY_TOKEN, layout.keyCodec(), layout.valueCodec());
    }
    this.layout = layout;
    this.sectionSet = sectionSet;
    int count = Integer.bitCount(sectionSet);
    this.sections = new Section[count];
    this.lengths = new int[count];
    this.offsets = new int[count];
    int sum = 0;
    int left = sectionSet;
    for (int i = 0; i < count; i++, left &= left - 1) {
      Section section = Section.ofId(Integer.numberOfTrailingZeros(left));
      sections[i] = section;
      lengths[i] = layout.length(section) / TOKENS;
      offsets[i] = layout.offsetIn(sectionSet, section);
      sum += lengths[i];
    }
    this.length = sum;
  }

  /** The sections of a set that rows can be made of. */
  public static int ofTokens(int sectionSet) {
    return sectionSet & BY_TOKEN;
  }

  public int sectionSet() {
    return sectionSet;
  }

  /** Bytes of a row. */
  public int length() {
    return length;
  }

  /**
   * Takes one token's row out of a whole page.
   *
   * @param page from {@code pageAt} on
   * @param token 0..63
   * @param rows receives {@link #length} bytes from {@code rowAt} on
   */
  public void takeFromPage(
      DirectBuffer page, int pageAt, int kvHead, int token, MutableDirectBuffer rows, int rowAt) {
    int to = rowAt;
    for (int i = 0; i < sections.length; i++) {
      take(i, page, pageAt + layout.offset(kvHead, sections[i]), token, rows, to);
      to += lengths[i];
    }
  }

  /** Takes one token's row out of the set's sections, laid end to end from {@code codesAt} on. */
  public void take(
      DirectBuffer codes, int codesAt, int token, MutableDirectBuffer rows, int rowAt) {
    int to = rowAt;
    for (int i = 0; i < sections.length; i++) {
      take(i, codes, codesAt + offsets[i], token, rows, to);
      to += lengths[i];
    }
  }

  private void take(
      int i, DirectBuffer section, int at, int token, MutableDirectBuffer rows, int to) {
    int bytes = lengths[i];
    if ((PLANES & sections[i].bit()) != 0) {
      for (int row = 0; row < bytes; row++) {
        rows.putByte(to + row, section.getByte(at + row * TOKENS + token));
      }
    } else {
      rows.putBytes(to, section, at + token * bytes, bytes);
    }
  }

  /**
   * Puts one token's row into the set's sections, laid end to end from {@code codesAt} on; what
   * they say of other tokens stays.
   */
  public void put(DirectBuffer rows, int rowAt, int token, MutableDirectBuffer codes, int codesAt) {
    int from = rowAt;
    for (int i = 0; i < sections.length; i++) {
      int bytes = lengths[i];
      int at = codesAt + offsets[i];
      if ((PLANES & sections[i].bit()) != 0) {
        for (int row = 0; row < bytes; row++) {
          codes.putByte(at + row * TOKENS + token, rows.getByte(from + row));
        }
      } else {
        codes.putBytes(at + token * bytes, rows, from, bytes);
      }
      from += bytes;
    }
  }
}
