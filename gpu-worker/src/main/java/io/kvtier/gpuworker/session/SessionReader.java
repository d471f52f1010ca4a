package io.kvtier.gpuworker.session;

import static io.kvtier.KvtierException.invalid;
import static io.kvtier.page.PageLayout.TOKENS;

import com.google.protobuf.ByteString;
import io.kvtier.client.PageTransport;
import io.kvtier.codec.PageDecoder;
import io.kvtier.gpuworker.core.HeadPolicy;
import io.kvtier.gpuworker.device.DeviceLayer;
import io.kvtier.gpuworker.device.DeviceSlot;
import io.kvtier.gpuworker.device.LayerPass;
import io.kvtier.gpuworker.device.LayerShape;
import io.kvtier.page.PageKey;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.Comparator;
import java.util.List;
import java.util.stream.IntStream;
import org.agrona.concurrent.UnsafeBuffer;
import org.jspecify.annotations.Nullable;

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

  private static final int STAGING_SLOTS = 64;
  private static final int LOAD_PAGES = 16;

  private final LayerShape shape;
  private final PageTransport tier;
  private final WriteBehind writeBehind;
  private final HotSet hotSet;
  private final CodesFetcher fetcher;
  private final long timeoutNs;

  SessionReader(
      LayerShape shape,
      PageTransport tier,
      WriteBehind writeBehind,
      HotSet hotSet,
      CodesFetcher fetcher,
      long timeoutNs) {
    this.shape = shape;
    this.tier = tier;
    this.writeBehind = writeBehind;
    this.hotSet = hotSet;
    this.fetcher = fetcher;
    this.timeoutNs = timeoutNs;
  }

  /**
   * Exact tokens from the latest back, then chosen tokens by falling mass, at most {@code
   * tokensMax} a head.
   */
  List<HeadRows> gather(int layer, SessionLayer target, float[] query, int tokensMax) {
    target.lock.lock();
    try {
      DeviceLayer device = target.device;
      if (device.tokens() == 0) {
        throw invalid("layer %d has no tokens", layer);
      }
      // Every head chooses as a sparse one here: the engine wants its dominant tokens, whatever its
      // class.
      HeadPolicy policy = new HeadPolicy(false, tokensMax, tokensMax, 0);
      LayerPass pass = device.newPass(Collections.nCopies(shape.kvHeads(), policy));
      pass.choose(query, 0, new float[0], new float[0], 0);
      pass.release();
      List<HeadRows> heads = new ArrayList<>();
      List<List<Integer>> chosen = new ArrayList<>();
      for (int head = 0; head < shape.kvHeads(); head++) {
        heads.add(exactRows(device, pass, head, tokensMax, chosen));
      }
      new StepCodes(layer, hotSet, fetcher, STAGING_SLOTS, timeoutNs)
          .give(
              pass,
              device.pageKeys(),
              (pairs, codes, count) -> {
                for (int i = 0; i < count; i++) {
                  readChosen(device, pass, pairs[i], codes[i], heads, chosen);
                }
              });
      return heads;
    } finally {
      target.lock.unlock();
    }
  }

  /**
   * A head's rows with the exact ones filled in; adds to {@code chosen} which chosen tokens fill
   * the rest.
   */
  private HeadRows exactRows(
      DeviceLayer device, LayerPass pass, int head, int tokensMax, List<List<Integer>> chosen) {
    List<Integer> exact =
        IntStream.range(0, device.tokens())
            .map(i -> device.tokens() - 1 - i)
            .filter(device::isExact)
            .limit(tokensMax)
            .boxed()
            .toList();
    List<Integer> byMass =
        IntStream.range(0, pass.chosenCount(head))
            .boxed()
            .sorted(Comparator.<Integer>comparingDouble(i -> -pass.chosenMass(head, i)))
            .limit(tokensMax - exact.size())
            .map(i -> pass.chosenPosition(head, i))
            .toList();
    chosen.add(byMass);
    int rows = exact.size() + byMass.size();
    HeadRows result =
        new HeadRows(
            new int[rows], new float[rows * shape.headDim()], new float[rows * shape.headDim()]);
    for (int row = 0; row < exact.size(); row++) {
      read(device, result, row, head, exact.get(row), null);
    }
    return result;
  }

  private void readChosen(
      DeviceLayer device,
      LayerPass pass,
      int index,
      DeviceSlot codes,
      List<HeadRows> heads,
      List<List<Integer>> chosen) {
    int head = pass.neededHead(index);
    List<Integer> positions = chosen.get(head);
    int exact = heads.get(head).positions().length - positions.size();
    for (int i = 0; i < positions.size(); i++) {
      if (positions.get(i) / TOKENS == pass.neededPage(index)) {
        read(device, heads.get(head), exact + i, head, positions.get(i), codes);
      }
    }
  }

  private void read(
      DeviceLayer device,
      HeadRows result,
      int row,
      int head,
      int position,
      @Nullable DeviceSlot codes) {
    result.positions()[row] = position;
    device.readRow(head, position, codes, result.keys(), result.values(), row * shape.headDim());
  }

  /**
   * Reads whole pages from the tier, and exact rows from the device. The layer is held only while
   * its state is copied: a reader that is slow to take rows stops no decode.
   */
  void load(int layer, SessionLayer target, int position, int tokens, RowsConsumer consumer) {
    List<PageKey> keys;
    ExactTail exact;
    target.lock.lock();
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
      target.lock.unlock();
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
