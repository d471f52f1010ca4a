package io.kvtier.codec;

import static io.kvtier.page.PageLayout.TOKENS;

import io.kvtier.page.Codec;
import io.kvtier.page.PageLayout;
import io.kvtier.page.Section;

/**
 * Where the keys, or the values, of a head lie among the head's bytes (FORMAT.md, "Sections").
 * Offsets of sections that the codec does not have are negative. Immutable.
 */
final class HeadSide {
  private final PageLayout layout;
  private final boolean keys;
  private final Codec codec;
  private final int[] planeAt;

  private HeadSide(PageLayout layout, boolean keys) {
    this.layout = layout;
    this.keys = keys;
    this.codec = keys ? layout.keyCodec() : layout.valueCodec();
    this.planeAt = new int[codec.bits()];
    int planeLength = layout.headDim() / Byte.SIZE * TOKENS;
    for (int plane = 0; keys && codec.family() != Codec.Family.RAW && plane < bits(); plane++) {
      planeAt[plane] =
          switch (plane) {
            case 0 -> layout.offsetInHead(Section.K_SIGN);
            case 1 -> layout.offsetInHead(Section.K_COARSE);
            default -> layout.offsetInHead(Section.K_FINE) + (plane - 2) * planeLength;
          };
    }
  }

  static HeadSide keys(PageLayout layout) {
    return new HeadSide(layout, true);
  }

  static HeadSide values(PageLayout layout) {
    return new HeadSide(layout, false);
  }

  boolean isKeys() {
    return keys;
  }

  Codec codec() {
    return codec;
  }

  int bits() {
    return codec.bits();
  }

  int headDim() {
    return layout.headDim();
  }

  /** Elements from one token's codes to the next's in scratch: the head dim up to whole longs. */
  int codeStride() {
    return (headDim() + Long.SIZE - 1) & -Long.SIZE;
  }

  /** Codes of a page's head in scratch: {@code [64][codeStride]}. */
  byte[] newCodes() {
    return new byte[TOKENS * codeStride()];
  }

  /** Of keys: the first byte of bit plane {@code plane}, 0 the highest bit. */
  int planeAt(int plane) {
    return planeAt[plane];
  }

  /** Of values: the first byte of the rows of codes. */
  int codesAt() {
    return at(Section.V_CODES);
  }

  /** Of values: bytes of one row of codes. */
  int codesRowLength() {
    return headDim() * bits() / Byte.SIZE;
  }

  int scalesAt() {
    return at(keys ? Section.K_SCALES : Section.V_SCALES);
  }

  int meanAt() {
    return at(keys ? Section.K_MEAN : Section.V_MEAN);
  }

  /** The first byte of the rows of codes of what is left; negative: there are none. */
  int restAt() {
    return at(keys ? Section.K_REST : Section.V_REST);
  }

  int restStepsAt() {
    return at(keys ? Section.K_REST_STEPS : Section.V_REST_STEPS);
  }

  int rangesAt() {
    return at(keys ? Section.K_RANGES : Section.V_RANGES);
  }

  int rawAt() {
    return at(keys ? Section.K_RAW : Section.V_RAW);
  }

  private int at(Section section) {
    return (layout.sections() & section.bit()) == 0 ? -1 : layout.offsetInHead(section);
  }

  /** The sections of this side, as a bit set. */
  int sections() {
    int set = 0;
    for (Section section : Section.values()) {
      if (section.ofKeys() == keys) {
        set |= section.bit() & layout.sections();
      }
    }
    return set;
  }

  @Override
  public String toString() {
    return codec + (keys ? " keys" : " values") + " of head dim " + headDim();
  }
}
