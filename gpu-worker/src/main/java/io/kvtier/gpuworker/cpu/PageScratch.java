package io.kvtier.gpuworker.cpu;

import static io.kvtier.page.PageLayout.TOKENS;

import io.kvtier.codec.PageEncoder;
import io.kvtier.gpuworker.device.LayerShape;
import org.agrona.concurrent.UnsafeBuffer;

/** What a page is encoded with, and in. One thread at a time. */
final class PageScratch {
  final PageEncoder encoder;
  final UnsafeBuffer page;

  /** {@code [64][kvHeads][headDim]}. */
  final float[] keys;

  /** Same shape. */
  final float[] values;

  PageScratch(LayerShape shape) {
    encoder = new PageEncoder(shape.layout());
    page = new UnsafeBuffer(new byte[shape.layout().pageLength()]);
    keys = new float[TOKENS * shape.rowLength()];
    values = new float[TOKENS * shape.rowLength()];
  }
}
