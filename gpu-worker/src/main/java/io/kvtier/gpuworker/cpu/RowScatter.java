package io.kvtier.gpuworker.cpu;

import static io.kvtier.page.PageLayout.TOKENS;

import io.kvtier.attention.HeadOffsets;
import io.kvtier.page.PageLayout;
import io.kvtier.page.Residence;
import io.kvtier.page.Section;
import org.agrona.UnsafeApi;

/**
 * Puts rows of single tokens back where kernels look for them, in scratch of the form of a page's
 * codes: what {@code TokenRows.put} does, on plain addresses. What the scratch says of other tokens
 * is left over from before. Immutable.
 */
final class RowScatter {
  /** Bytes of a row that go to key planes: one a plane's row. */
  private final int planeBytes;

  private final int planesAt;
  private final int valueBytes;
  private final int valuesAt;
  private final int scalesAt;

  /**
   * For the rows of a sketched residence.
   *
   * @param codesSet what the scratch is laid out as
   */
  RowScatter(PageLayout layout, Residence residence, int codesSet) {
    int planes = residence.rows() & Section.set(Section.K_COARSE, Section.K_FINE);
    this.planeBytes = layout.lengthOf(planes) / TOKENS;
    // The planes of a set lie one behind the other, as their bytes do in a row.
    this.planesAt = layout.offsetIn(codesSet, Section.ofId(Integer.numberOfTrailingZeros(planes)));
    this.valueBytes = layout.length(Section.V_CODES) / TOKENS;
    this.valuesAt = layout.offsetIn(codesSet, Section.V_CODES);
    this.scalesAt = layout.offsetIn(codesSet, Section.V_SCALES);
  }

  /** Bytes of a row. */
  int rowBytes() {
    return planeBytes + valueBytes + Short.BYTES;
  }

  /** Where values lie in a row, for kernels that take them one by one. */
  HeadOffsets inRow(int headDim) {
    return new HeadOffsets(headDim, 0, 0, 0, 0, 0, planeBytes, planeBytes + valueBytes);
  }

  /**
   * Puts one token's key.
   *
   * @param row its address
   * @param codes address of the scratch
   */
  void putKey(long row, int token, long codes) {
    long to = codes + planesAt + token;
    for (int i = 0; i < planeBytes; i++) {
      UnsafeApi.putByte(to + (long) i * TOKENS, UnsafeApi.getByte(row + i));
    }
  }

  /** Puts one token's value; parameters as for {@link #putKey}. */
  void putValue(long row, int token, long codes) {
    long from = row + planeBytes;
    // Eight bytes at a time: a value's codes are a multiple of eight bytes long.
    long to = codes + valuesAt + (long) token * valueBytes;
    for (int i = 0; i < valueBytes; i += Long.BYTES) {
      UnsafeApi.putLong(to + i, UnsafeApi.getLong(from + i));
    }
    UnsafeApi.putShort(
        codes + scalesAt + (long) token * Short.BYTES, UnsafeApi.getShort(from + valueBytes));
  }

  /**
   * Makes all tokens' value scales 0. What else is left over from before is multiplied by a weight
   * of 0; a scale that is none, as bytes of another section may be, would not vanish so.
   */
  void clearValueScales(long codes) {
    for (int i = 0; i < TOKENS * Short.BYTES; i += Long.BYTES) {
      UnsafeApi.putLong(codes + scalesAt + i, 0);
    }
  }
}
