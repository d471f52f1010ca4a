package io.kvtier.gpuworker.session;

import com.google.protobuf.ByteString;
import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.attention.RowForm;
import io.kvtier.client.PageTransport;
import io.kvtier.gpuworker.core.MeasuredRates;
import io.kvtier.gpuworker.device.LayerShape;
import io.kvtier.page.PageKey;
import io.kvtier.page.Residence;
import io.kvtier.page.TokenRows;
import io.kvtier.v1.RowsOf;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.IntUnaryOperator;
import org.agrona.DirectBuffer;
import org.agrona.concurrent.UnsafeBuffer;

/**
 * Brings rows of single tokens onto the device: from the tier in one batch, or from pages that the
 * tier has not acknowledged yet. Safe for any number of threads.
 */
final class RowFetcher {
  private final LayerShape shape;
  private final PageTransport tier;
  private final WriteBehind writeBehind;
  private final MeasuredRates rates;
  private final TokenRows twoPlanes;
  private final TokenRows onePlane;
  private final RowForm form;
  private final AtomicLong bytesFetched = new AtomicLong();

  RowFetcher(LayerShape shape, PageTransport tier, WriteBehind writeBehind, MeasuredRates rates) {
    this.rates = rates;
    this.shape = shape;
    this.tier = tier;
    this.writeBehind = writeBehind;
    this.twoPlanes = new TokenRows(shape.layout(), Residence.TWO_PLANES.rows());
    this.onePlane = new TokenRows(shape.layout(), Residence.ONE_PLANE.rows());
    this.form = shape.rowForm();
  }

  /** Bytes of rows that have come from the tier so far, and of the requests for them. */
  long bytesFetched() {
    return bytesFetched.get();
  }

  /** How rows of so many sections are made. */
  TokenRows rowsOf(int sections) {
    return sections == onePlane.sectionSet() ? onePlane : twoPlanes;
  }

  /** Bytes of a row of so many sections, as it comes. */
  int rowBytes(int sections) {
    return rowsOf(sections).length();
  }

  /**
   * Fetches rows to their places.
   *
   * @param batch in order, each row with a place
   * @param keys of all of the layer's pages, by page index
   * @param sections of each KV head's rows, as section sets
   * @throws KvtierException if the tier refuses; what the places hold then is undefined
   */
  void fetch(RowBatch batch, List<PageKey> keys, IntUnaryOperator sections) {
    List<RowsOf> remote = new ArrayList<>();
    List<Integer> firstOfRemote = new ArrayList<>();
    long bytes = 0;
    int from = 0;
    while (from < batch.count()) {
      int set = sections.applyAsInt(batch.kvHead(from));
      int to = from + 1;
      while (to < batch.count()
          && batch.page(to) == batch.page(from)
          && sections.applyAsInt(batch.kvHead(to)) == set) {
        to++;
      }
      PageKey key = keys.get(batch.page(from));
      ByteString pending = writeBehind.pending(key);
      if (pending == null) {
        remote.add(request(key, set, batch, from, to));
        firstOfRemote.add(from);
        bytes += (long) (to - from) * rowBytes(set);
      } else {
        takePending(pending, rowsOf(set), batch, from, to);
      }
      from = to;
    }
    if (remote.isEmpty()) {
      return;
    }
    for (RowsOf request : remote) {
      bytes += request.getSerializedSize();
      bytesFetched.addAndGet(request.getSerializedSize());
    }
    long startNs = System.nanoTime();
    tier.readRows(
        shape.layout(),
        remote,
        (data, offset, length, index) ->
            take(data, offset, length, remote.get(index), batch, firstOfRemote.get(index)));
    rates.fetched(bytes, System.nanoTime() - startNs);
  }

  /** Rows of some heads of one page. */
  private static RowsOf request(PageKey key, int set, RowBatch batch, int from, int to) {
    RowsOf.Builder request = RowsOf.newBuilder().setKey(key.toByteString()).setSections(set);
    long low = 0;
    long high = 0;
    int i = from;
    while (i < to) {
      int head = batch.kvHead(i);
      long tokens = 0;
      for (; i < to && batch.kvHead(i) == head; i++) {
        tokens |= 1L << batch.token(i);
      }
      low |= head < Long.SIZE ? 1L << head : 0;
      high |= head < Long.SIZE ? 0 : 1L << (head - Long.SIZE);
      request.addTokens(tokens);
    }
    return request.setHeadsLow(low).setHeadsHigh(high).build();
  }

  private void take(
      DirectBuffer data, int offset, int length, RowsOf request, RowBatch batch, int from) {
    int rows = 0;
    for (int head = 0; head < request.getTokensCount(); head++) {
      rows += Long.bitCount(request.getTokens(head));
    }
    int each = rowsOf(request.getSections()).length();
    if (length != rows * each) {
      throw new KvtierException(
          Code.LOST,
          "the tier answered %d bytes for %d rows of a page; they have %d"
              .formatted(length, rows, rows * each));
    }
    int fetchedAt = form.fetchedAt(request.getSections());
    for (int i = 0; i < rows; i++) {
      UnsafeBuffer to = batch.slot(from + i).buffer();
      int at = batch.offset(from + i);
      to.putBytes(at + fetchedAt, data, offset + i * each, each);
      form.markFetched(to, at);
    }
    bytesFetched.addAndGet(length);
  }

  private void takePending(ByteString page, TokenRows rows, RowBatch batch, int from, int to) {
    DirectBuffer bytes = new UnsafeBuffer(page.asReadOnlyByteBuffer());
    int fetchedAt = form.fetchedAt(rows.sectionSet());
    for (int i = from; i < to; i++) {
      UnsafeBuffer place = batch.slot(i).buffer();
      int at = batch.offset(i);
      rows.takeFromPage(bytes, 0, batch.kvHead(i), batch.token(i), place, at + fetchedAt);
      form.markFetched(place, at);
    }
  }
}
