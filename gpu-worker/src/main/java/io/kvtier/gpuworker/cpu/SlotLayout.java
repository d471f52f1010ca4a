package io.kvtier.gpuworker.cpu;

import io.kvtier.gpuworker.device.LayerShape;
import io.kvtier.page.PageLayout;
import io.kvtier.page.Section;

/**
 * Byte offsets of sections in the device's slots: a page's sketch of all heads, one head's codes of
 * a page. Immutable.
 */
final class SlotLayout {
  final int sketchStride;
  final int signAt;
  final int coarseAt;
  final int keyScalesAt;
  final int keyMeanAt;
  final int valueMeanAt;
  final int fineAt;
  final int valueCodesAt;
  final int valueScalesAt;

  SlotLayout(PageLayout layout) {
    this.sketchStride = layout.lengthOf(LayerShape.SKETCH);
    this.signAt = layout.offsetIn(LayerShape.SKETCH, Section.K_SIGN);
    this.coarseAt = layout.offsetIn(LayerShape.SKETCH, Section.K_COARSE);
    this.keyScalesAt = layout.offsetIn(LayerShape.SKETCH, Section.K_SCALES);
    this.keyMeanAt = layout.offsetIn(LayerShape.SKETCH, Section.K_MEAN);
    this.valueMeanAt = layout.offsetIn(LayerShape.SKETCH, Section.V_MEAN);
    this.fineAt = layout.offsetIn(LayerShape.CODES, Section.K_FINE);
    this.valueCodesAt = layout.offsetIn(LayerShape.CODES, Section.V_CODES);
    this.valueScalesAt = layout.offsetIn(LayerShape.CODES, Section.V_SCALES);
  }
}
