package io.kvtier.gpuworker.session;

import static io.kvtier.KvtierException.invalid;
import static io.kvtier.page.PageLayout.TOKENS;

import com.google.protobuf.ByteString;
import io.kvtier.client.PageTransport;
import io.kvtier.codec.PageDecoder;
import io.kvtier.gpuworker.device.DeviceLayer;
import io.kvtier.gpuworker.device.LayerShape;
import io.kvtier.page.PageKey;
import java.util.Arrays;
import java.util.List;
import org.agrona.concurrent.UnsafeBuffer;

/**
 * Gives keys and values back to engines that compute attention themselves. One call, one thread.
 */
public final class SessionReader {
  /**
   * Rows of one KV head.
   *
   * @param positions {@code [rows]}
   * @param keys {@code [rows][headDim]}
   * @param values same shape
   */
  public record HeadRows(int[] positions, float[] keys, float[] values) {}

  /** Takes rows of consecutive tokens. */
  public interface RowsConsumer {
    /**
     * Takes {@code [tokens][kvHeads][headDim]} keys and values; the arrays are used again after the
     * call.
     */
    void accept(int position, int tokens, float[] keys, float[] values);
  }

  private static final int LOAD_PAGES = 16;

  private final LayerShape shape;
  private final PageTransport tier;
  private final WriteBehind writeBehind;
  private final StepFetches fetches;

  SessionReader(
      LayerShape shape, PageTransport tier, WriteBehind writeBehind, StepFetches fetches) {
    this.shape = shape;
    this.tier = tier;
    this.writeBehind = writeBehind;
    this.fetches = fetches;
  }

  /**
   * Exact tokens from the latest back, then others by falling mass, at most {@code tokensMax} a
   * head.
   */
  List<HeadRows> gather(
      int layer, SessionLayer target, float[] query, int tokensMax, boolean asPlanned) {
    target.enter();
    try {
      return new Gatherer(target, shape, fetches, query, tokensMax, asPlanned, layer).rows();
    } finally {
      target.leave();
    }
  }

  /**
   * Reads whole pages from the tier, and exact rows from the device. The layer is held only while
   * its state is copied: a reader that is slow to take rows stops no decode.
   */
  void load(int layer, SessionLayer target, int position, int tokens, RowsConsumer consumer) {
    List<PageKey> keys;
    ExactTail exact;
    target.enter();
    try {
      DeviceLayer device = target.device;
      if (position < 0 || tokens < 1 || (long) position + tokens > device.tokens()) {
        throw invalid(
            "tokens is %s from position %s on, up to position %d; layer %d has %d tokens, positions"
                + " 0..%d",
            Integer.toUnsignedString(tokens),
            Integer.toUnsignedString(position),
            Integer.toUnsignedLong(position) + Integer.toUnsignedLong(tokens) - 1,
            layer,
            device.tokens(),
            device.tokens() - 1);
      }
      keys = device.pageKeys();
      exact = exactTail(device);
    } finally {
      target.leave();
    }
    writeBehind.flush();
    int paged = keys.size() * TOKENS;
    if (position < paged) {
      loadPages(keys, exact, position, Math.min(position + tokens, paged), consumer);
    }
    int length = shape.rowLength();
    for (int at = Math.max(position, paged); at < position + tokens; at += TOKENS) {
      int n = Math.min(TOKENS, position + tokens - at);
      int from = (exact.sinks() + at - paged) * length;
      consumer.accept(
          at,
          n,
          Arrays.copyOfRange(exact.keys(), from, from + n * length),
          Arrays.copyOfRange(exact.values(), from, from + n * length));
    }
  }

  /** A copy of the exact rows: {@code sinks} rows of positions 0.., then those of the window. */
  private record ExactTail(int sinks, float[] keys, float[] values) {}

  private ExactTail exactTail(DeviceLayer device) {
    int paged = device.pages() * TOKENS;
    int sinks = 0;
    while (sinks < paged && device.isExact(sinks)) {
      sinks++;
    }
    int rows = sinks + device.tokens() - paged;
    float[] keys = new float[rows * shape.rowLength()];
    float[] values = new float[rows * shape.rowLength()];
    for (int row = 0; row < rows; row++) {
      int position = row < sinks ? row : paged + row - sinks;
      for (int head = 0; head < shape.kvHeads(); head++) {
        int at = row * shape.rowLength() + head * shape.headDim();
        device.readRow(head, position, null, keys, values, at);
      }
    }
    return new ExactTail(sinks, keys, values);
  }

  private void loadPages(
      List<PageKey> keys, ExactTail exact, int from, int to, RowsConsumer consumer) {
    PageDecoder decoder = new PageDecoder(shape.layout());
    float[] keyRows = new float[TOKENS * shape.rowLength()];
    float[] valueRows = new float[TOKENS * shape.rowLength()];
    int lastPage = (to - 1) / TOKENS;
    // Small batches: each has a deadline of its own, whatever time the reader takes.
    for (int first = from / TOKENS; first <= lastPage; first += LOAD_PAGES) {
      int firstPage = first;
      tier.get(
          keys.subList(first, Math.min(first + LOAD_PAGES, lastPage + 1)),
          (page, index) -> {
            int start = (firstPage + index) * TOKENS;
            decode(decoder, page, keyRows, valueRows);
            if (start == 0) {
              int sinkRows = exact.sinks() * shape.rowLength();
              System.arraycopy(exact.keys(), 0, keyRows, 0, sinkRows);
              System.arraycopy(exact.values(), 0, valueRows, 0, sinkRows);
            }
            int skip = Math.max(0, from - start);
            int n = Math.min(TOKENS, to - start) - skip;
            int skipped = skip * shape.rowLength();
            System.arraycopy(keyRows, skipped, keyRows, 0, keyRows.length - skipped);
            System.arraycopy(valueRows, skipped, valueRows, 0, valueRows.length - skipped);
            consumer.accept(start + skip, n, keyRows, valueRows);
          });
    }
  }

  private void decode(PageDecoder decoder, ByteString page, float[] keyRows, float[] valueRows) {
    UnsafeBuffer buffer = new UnsafeBuffer(page.toByteArray());
    for (int head = 0; head < shape.kvHeads(); head++) {
      int at = head * shape.headDim();
      decoder.keys(buffer, 0, head, TOKENS, keyRows, at, shape.rowLength());
      decoder.values(buffer, 0, head, TOKENS, valueRows, at, shape.rowLength());
    }
  }
}
