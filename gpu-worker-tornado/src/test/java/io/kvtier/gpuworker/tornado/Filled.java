package io.kvtier.gpuworker.tornado;

import io.kvtier.gpuworker.core.HeadPolicy;
import io.kvtier.gpuworker.device.AttentionDevice;
import io.kvtier.gpuworker.device.DeviceLayer;
import io.kvtier.gpuworker.device.DeviceSlot;
import io.kvtier.gpuworker.device.LayerPass;
import io.kvtier.gpuworker.device.LayerShape;
import io.kvtier.page.Codec;
import io.kvtier.page.Fingerprint;
import io.kvtier.page.PageKey;
import io.kvtier.page.PageLayout;
import io.kvtier.page.Residence;
import io.kvtier.page.TokenRows;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.SplittableRandom;
import java.util.UUID;
import org.agrona.DirectBuffer;
import org.agrona.concurrent.UnsafeBuffer;

/** A layer filled with the same tokens on any device, and its pages. */
final class Filled implements DeviceLayer.PageSink {
  private static final Fingerprint MODEL = new Fingerprint(1, 2);

  final AttentionDevice device;
  final LayerShape shape;
  final DeviceLayer layer;
  private final List<UnsafeBuffer> pages = new ArrayList<>();
  private final TokenRows rows;

  private Filled(AttentionDevice device, LayerShape shape) {
    this.device = device;
    this.shape = shape;
    this.layer = device.newLayer(0, shape);
    this.rows = new TokenRows(shape.layout(), Residence.TWO_PLANES.rows());
  }

  static LayerShape shape(int exactBytes) {
    PageLayout layout = new PageLayout(Codec.ROT4, Codec.ROT4, 2, 64);
    return new LayerShape(MODEL, layout, 8, exactBytes, 4, 64);
  }

  static Filled with(
      AttentionDevice device, LayerShape shape, int tokens, float size, HeadPolicy policy) {
    Filled filled = new Filled(device, shape);
    for (int head = 0; head < 2; head++) {
      filled.layer.hold(head, policy.residence(), List.of(), List.of());
    }
    filled.append(tokens, size, 77);
    return filled;
  }

  void append(int tokens, float size, long seed) {
    SplittableRandom random = new SplittableRandom(seed);
    float[] keys = CodedHead.gaussian(random, tokens * shape.rowLength(), size);
    float[] values = CodedHead.gaussian(random, tokens * shape.rowLength(), size);
    layer.append(keys, values, tokens, this);
  }

  @Override
  public PageKey key(int pageIndex, DirectBuffer page) {
    return PageKey.ofSession(new UUID(3, 4), pageIndex, MODEL, 0, shape.layout());
  }

  @Override
  public void accept(PageKey key, DirectBuffer page, int length) {
    byte[] bytes = new byte[length];
    page.getBytes(0, bytes);
    pages.add(new UnsafeBuffer(bytes));
  }

  /** Bytes from one row in a slot to the next. */
  int rowLength() {
    return shape.rowForm().bytes();
  }

  /** Output and log-sum-exps of one query, its rows in slots of its own. */
  float[] attend(HeadPolicy policy, float[] query) {
    DeviceSlot slot = device.memory().allocate(2 * Math.max(1, policy.tokensMax()) * rowLength());
    float[] result = attend(policy, query, slot, true);
    slot.release();
    return result;
  }

  /**
   * The same, with rows that lie one behind the other.
   *
   * @param slot for them, the first head's first
   * @param fill whether the rows are written there, or are there already
   */
  float[] attend(HeadPolicy policy, float[] query, DeviceSlot slot, boolean fill) {
    return attend(policy, query, slot, fill, Integer.MAX_VALUE);
  }

  /** The same, with all rows from the fourth on written to one place after the other's use. */
  float[] attendInOnePlace(HeadPolicy policy, float[] query, DeviceSlot slot) {
    return attend(policy, query, slot, true, 4 * rowLength());
  }

  private float[] attend(
      HeadPolicy policy, float[] query, DeviceSlot slot, boolean fill, int lastAt) {
    LayerPass pass = layer.newPass(Collections.nCopies(2, policy));
    pass.choose(query, 0, new float[0], new float[0], 0);
    int at = 0;
    for (int head = 0; head < 2 && policy.sketched(); head++) {
      for (int i = 0; i < pass.chosenCount(head); i++) {
        int position = pass.chosenPosition(head, i);
        if (fill) {
          int to = at + shape.rowForm().fetchedAt(rows.sectionSet());
          rows.takeFromPage(pages.get(position / 64), 0, head, position % 64, slot.buffer(), to);
          shape.rowForm().markFetched(slot.buffer(), at);
        }
        pass.giveRow(head, i, slot, at);
        at = Math.min(lastAt, at + rowLength());
      }
    }
    pass.attendRows();
    float[] result = new float[query.length + 8];
    pass.finish(result, 0, result, query.length);
    return result;
  }
}
