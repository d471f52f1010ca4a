package io.kvtier.gpuworker.session;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.codec.PageDecoder;
import io.kvtier.codec.PageEncoder;
import io.kvtier.codec.RawRows;
import io.kvtier.gpuworker.device.DeviceLayer;
import io.kvtier.gpuworker.device.LayerShape;
import io.kvtier.page.Codec;
import io.kvtier.page.PageIdentity;
import io.kvtier.page.PageLayout;
import io.kvtier.page.Pages;
import org.agrona.DirectBuffer;
import org.agrona.concurrent.UnsafeBuffer;

/**
 * The exact rows of a prompt's first tokens as a page, so that sessions which share the prompt have
 * them too (FORMAT.md, "Sink rows").
 */
final class SinkPage {
  /** Parts of bf16 that a 32-bit element is the sum of. */
  private static final int PARTS_OF_FP32 = 3;

  private final LayerShape shape;
  private final PageLayout layout;
  private final int parts;

  SinkPage(LayerShape shape) {
    this.shape = shape;
    this.layout = new PageLayout(Codec.RAW16, Codec.RAW16, shape.kvHeads(), shape.headDim());
    this.parts = shape.exactBytes() == Short.BYTES ? 1 : PARTS_OF_FP32;
  }

  PageLayout layout() {
    return layout;
  }

  private int rows() {
    return parts * shape.sinkTokens();
  }

  /** The sealed page of a layer whose first tokens are exact. */
  UnsafeBuffer write(int layer, DeviceLayer device) {
    int rowLength = shape.rowLength();
    float[] keys = new float[rows() * rowLength];
    float[] values = new float[rows() * rowLength];
    for (int t = 0; t < shape.sinkTokens(); t++) {
      for (int head = 0; head < shape.kvHeads(); head++) {
        device.readRow(head, t, null, keys, values, t * rowLength + head * shape.headDim());
      }
    }
    split(keys);
    split(values);
    UnsafeBuffer page = new UnsafeBuffer(new byte[layout.pageLength()]);
    PageIdentity identity = new PageIdentity(shape.fingerprint(), layer, 0, rows());
    new PageEncoder(layout).encode(identity, keys, values, page, 0);
    return page;
  }

  /** Each part is what is left, rounded to bf16; differences of neighbours in size are exact. */
  private void split(float[] rows) {
    int length = shape.sinkTokens() * shape.rowLength();
    for (int part = 1; part < parts; part++) {
      for (int i = (part - 1) * length; i < part * length; i++) {
        float rounded = RawRows.ofBf16(RawRows.toBf16(rows[i]));
        rows[i + length] = rows[i] - rounded;
        rows[i] = rounded;
      }
    }
  }

  /**
   * Reads a verified page.
   *
   * @param keys receives {@code [sinkTokens][kvHeads][headDim]}
   * @param values likewise
   * @throws KvtierException LOST if it holds other rows than a session of this shape needs
   */
  void read(DirectBuffer page, int offset, float[] keys, float[] values) {
    int found = Pages.identity(page, offset).tokens();
    if (found != rows()) {
      throw new KvtierException(
          Code.LOST, "a page of sink rows has %d rows; %d are needed".formatted(found, rows()));
    }
    PageDecoder decoder = new PageDecoder(layout);
    int rowLength = shape.rowLength();
    float[] all = new float[rows() * rowLength];
    for (int head = 0; head < shape.kvHeads(); head++) {
      decoder.keys(page, offset, head, rows(), all, head * shape.headDim(), rowLength);
    }
    join(all, keys);
    for (int head = 0; head < shape.kvHeads(); head++) {
      decoder.values(page, offset, head, rows(), all, head * shape.headDim(), rowLength);
    }
    join(all, values);
  }

  private void join(float[] all, float[] rows) {
    int length = shape.sinkTokens() * shape.rowLength();
    for (int i = 0; i < length; i++) {
      float sum = 0;
      for (int part = parts - 1; part >= 0; part--) {
        sum += all[part * length + i];
      }
      rows[i] = sum;
    }
  }
}
