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
import org.jspecify.annotations.Nullable;

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

  /** What four bits leave of a token; null: that is not stored. */
  private final @Nullable TokenRows finer;

  private final RowForm form;
  private final AtomicLong bytesFetched = new AtomicLong();

  RowFetcher(LayerShape shape, PageTransport tier, WriteBehind writeBehind, MeasuredRates rates) {
    this.rates = rates;
    this.shape = shape;
    this.tier = tier;
    this.writeBehind = writeBehind;
    this.twoPlanes = new TokenRows(shape.layout(), Residence.TWO_PLANES.rows());
    this.onePlane = new TokenRows(shape.layout(), Residence.ONE_PLANE.rows());
    int sections = Residence.finer(shape.layout());
    this.finer = sections == 0 ? null : new TokenRows(shape.layout(), sections);
    this.form = shape.rowForm();
  }

  /** Bytes of rows that have come from the tier so far, and of the requests for them. */
  long bytesFetched() {
    return bytesFetched.get();
  }

  /** Sections that say what four bits leave; 0: there are none. */
  int finerSections() {
    return finer == null ? 0 : finer.sectionSet();
  }

  /** Bytes of what four bits leave of a token; 0: that is not stored. */
  int finerRowBytes() {
    return finer == null ? 0 : finer.length();
  }

  /** How rows of so many sections are made. */
  TokenRows rowsOf(int sections) {
    if (finer != null && isFiner(sections)) {
      return finer;
    }
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
    int sections = request.getSections();
    int each = rowsOf(sections).length();
    if (length != rows * each) {
      throw new KvtierException(
          Code.LOST,
          "the tier answered %d bytes for %d rows of a page; they have %d"
              .formatted(length, rows, rows * each));
    }
    for (int i = 0; i < rows; i++) {
      UnsafeBuffer to = batch.slot(from + i).buffer();
      int at = batch.offset(from + i);
      to.putBytes(at + fetchedAt(sections), data, offset + i * each, each);
      mark(sections, to, at);
    }
    bytesFetched.addAndGet(length);
  }

  /** Where a row's bytes come in its place: as they are, but for those that lack the sketch. */
  private int fetchedAt(int sections) {
    return isFiner(sections) ? 0 : form.fetchedAt(sections);
  }

  private void mark(int sections, UnsafeBuffer place, int at) {
    if (!isFiner(sections)) {
      form.markFetched(place, at);
    }
  }

  private boolean isFiner(int sections) {
    return finer != null && sections == finer.sectionSet();
  }

  private void takePending(ByteString page, TokenRows rows, RowBatch batch, int from, int to) {
    DirectBuffer bytes = new UnsafeBuffer(page.asReadOnlyByteBuffer());
    int sections = rows.sectionSet();
    for (int i = from; i < to; i++) {
      UnsafeBuffer place = batch.slot(i).buffer();
      int at = batch.offset(i) + fetchedAt(sections);
      rows.takeFromPage(bytes, 0, batch.kvHead(i), batch.token(i), place, at);
      mark(sections, place, batch.offset(i));
    }
  }
}
