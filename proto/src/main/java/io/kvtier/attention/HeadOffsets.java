package io.kvtier.attention;

import static io.kvtier.KvtierException.requireInRange;

import io.kvtier.page.PageLayout;
import io.kvtier.page.Section;

/**
 * Where the rot4 sections of one KV head lie, in bytes from two addresses: that of the sketch and
 * that of the codes. In a whole page both are the page's own address; on a device they are two
 * slots.
 *
 * @param headDim a multiple of 16
 * @param planes from the sketch: K_SIGN, and K_COARSE behind it without a gap
 * @param keyScales from the sketch
 * @param keyMean from the sketch
 * @param valueMean from the sketch
 * @param fine from the codes: both planes of K_FINE
 * @param valueCodes from the codes
 * @param valueScales from the codes
 */
public record HeadOffsets(
    int headDim,
    int planes,
    int keyScales,
    int keyMean,
    int valueMean,
    int fine,
    int valueCodes,
    int valueScales) {
  public HeadOffsets {
    requireInRange("head_dim", headDim, 16, PageLayout.HEAD_DIM_MAX);
  }

  /** Offsets in a whole page. */
  public static HeadOffsets inPage(PageLayout layout, int kvHead) {
    return new HeadOffsets(
        layout.headDim(),
        layout.offset(kvHead, Section.K_SIGN),
        layout.offset(kvHead, Section.K_SCALES),
        layout.offset(kvHead, Section.K_MEAN),
        layout.offset(kvHead, Section.V_MEAN),
        layout.offset(kvHead, Section.K_FINE),
        layout.offset(kvHead, Section.V_CODES),
        layout.offset(kvHead, Section.V_SCALES));
  }

  /**
   * Offsets in two slots that hold sets of sections laid end to end.
   *
   * @param sketchAt offset of the head's sketch in its slot
   */
  public static HeadOffsets inSlots(PageLayout layout, int sketchSet, int sketchAt, int codesSet) {
    return new HeadOffsets(
        layout.headDim(),
        sketchAt + layout.offsetIn(sketchSet, Section.K_SIGN),
        sketchAt + layout.offsetIn(sketchSet, Section.K_SCALES),
        sketchAt + layout.offsetIn(sketchSet, Section.K_MEAN),
        sketchAt + layout.offsetIn(sketchSet, Section.V_MEAN),
        layout.offsetIn(codesSet, Section.K_FINE),
        layout.offsetIn(codesSet, Section.V_CODES),
        layout.offsetIn(codesSet, Section.V_SCALES));
  }

  /** Bytes of one bit plane. */
  public int planeLength() {
    return headDim * Long.BYTES;
  }
}
