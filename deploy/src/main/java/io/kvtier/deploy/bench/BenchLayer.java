package io.kvtier.deploy.bench;

import static io.kvtier.page.PageLayout.TOKENS;

import io.kvtier.attention.RowForm;
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

/**
 * One layer of Llama-3.1-8B's geometry with random keys and values, the rows of its tokens beside
 * it as a hot set that holds them all would. The keys are Gaussian around a common mean, so what a
 * query finds is scattered over all pages: the worst case for the attention to the chosen tokens.
 */
final class BenchLayer implements DeviceLayer.PageSink, AutoCloseable {
  static final int Q_HEADS = 32;
  static final int KV_HEADS = 8;
  static final int HEAD_DIM = 128;

  private static final Fingerprint MODEL = new Fingerprint(1, 1);
  private static final int CHUNK = 1024;

  /** Rows of so many pages lie in one slot: a hot set's slots hold many rows, too. */
  private static final int SLOT_PAGES = 64;

  private final AttentionDevice device;
  private final LayerShape shape;
  private final DeviceLayer layer;
  private final TokenRows tokenRows;
  private final RowForm form;

  /** {@code [pages / SLOT_PAGES]}: {@code [SLOT_PAGES][heads][64]} rows. */
  private final List<DeviceSlot> rows = new ArrayList<>();

  private int rowPages;
  private final boolean dense;

  BenchLayer(AttentionDevice device, int tokens, boolean dense, long seed) {
    this.device = device;
    PageLayout layout = new PageLayout(Codec.ROT4, Codec.ROT4, KV_HEADS, HEAD_DIM);
    this.shape = new LayerShape(MODEL, layout, Q_HEADS, Short.BYTES, 4, 64);
    this.layer = device.newLayer(0, shape);
    this.dense = dense;
    this.tokenRows = new TokenRows(layout, Residence.TWO_PLANES.rows());
    this.form = shape.rowForm();
    SplittableRandom random = new SplittableRandom(seed);
    float[] keys = new float[CHUNK * shape.rowLength()];
    float[] values = new float[CHUNK * shape.rowLength()];
    for (int head = 0; dense && head < KV_HEADS; head++) {
      layer.hold(head, Residence.DENSE, List.of(), List.of());
    }
    for (int at = 0; at < tokens; at += CHUNK) {
      fill(random, keys, 1);
      fill(random, values, .5f);
      layer.append(keys, values, Math.min(CHUNK, tokens - at), this);
    }
  }

  /** Bytes that a layer of so many tokens takes. */
  static long bytes(int tokens) {
    return 1500L * tokens + (8 << 20);
  }

  private static List<HeadPolicy> allDense() {
    return Collections.nCopies(KV_HEADS, HeadPolicy.DENSE);
  }

  /** Sums of four uniform numbers are near enough to normal, and made much sooner. */
  private static void fill(SplittableRandom random, float[] rows, float mean) {
    for (int i = 0; i < rows.length; i++) {
      long bits = random.nextLong();
      int sum =
          (int) (bits & 0xFFFF)
              + (int) (bits >>> 16 & 0xFFFF)
              + (int) (bits >>> 32 & 0xFFFF)
              + (int) (bits >>> 48);
      rows[i] = (sum - 131070) * (1.732f / 65536) + (i % 7 == 0 ? mean : 0);
    }
  }

  static float[] queries(long seed) {
    float[] queries = new float[Q_HEADS * HEAD_DIM];
    SplittableRandom random = new SplittableRandom(seed);
    for (int i = 0; i < queries.length; i++) {
      queries[i] = (float) (random.nextGaussian() * 2.5);
    }
    return queries;
  }

  LayerPass pass(HeadPolicy policy) {
    return layer.newPass(dense ? allDense() : Collections.nCopies(KV_HEADS, policy));
  }

  /** Attends one query of every head; the rows of chosen tokens are at hand. */
  void attend(LayerPass pass, float[] queries, float[] output, float[] lse) {
    pass.choose(queries, 0, new float[0], new float[0], 0);
    for (int head = 0; head < KV_HEADS; head++) {
      int count = dense ? 0 : pass.chosenCount(head);
      for (int i = 0; i < count; i++) {
        int position = pass.chosenPosition(head, i);
        int page = position / TOKENS;
        int at = (page % SLOT_PAGES * KV_HEADS + head) * TOKENS + position % TOKENS;
        pass.giveRow(head, i, rows.get(page / SLOT_PAGES), at * form.bytes());
      }
    }
    pass.attendRows();
    pass.finish(output, 0, lse, 0);
  }

  @Override
  public PageKey key(int pageIndex, DirectBuffer page) {
    return PageKey.ofSession(new UUID(1, 1), pageIndex, MODEL, 0, shape.layout());
  }

  @Override
  public void accept(PageKey key, DirectBuffer page, int length) {
    if (dense) {
      return;
    }
    int index = rowPages++;
    if (index % SLOT_PAGES == 0) {
      rows.add(device.memory().allocate(SLOT_PAGES * KV_HEADS * TOKENS * form.bytes()));
    }
    DeviceSlot slot = rows.getLast();
    for (int head = 0; head < KV_HEADS; head++) {
      for (int token = 0; token < TOKENS; token++) {
        int at = ((index % SLOT_PAGES * KV_HEADS + head) * TOKENS + token) * form.bytes();
        int fetchedAt = form.fetchedAt(Residence.TWO_PLANES);
        tokenRows.takeFromPage(page, 0, head, token, slot.buffer(), at + fetchedAt);
        form.markFetched(slot.buffer(), at);
      }
    }
  }

  int pages() {
    return layer.pages();
  }

  int tokens() {
    return layer.pages() * TOKENS;
  }

  @Override
  public void close() {
    layer.release();
    rows.forEach(DeviceSlot::release);
  }
}
