package io.kvtier.client;

import com.google.protobuf.ByteString;
import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.TenantName;
import io.kvtier.page.PageKey;
import io.kvtier.page.PageLayout;
import io.kvtier.page.TokenRows;
import io.kvtier.v1.RowsOf;
import io.kvtier.v1.SectionsOf;
import java.util.BitSet;
import java.util.List;
import java.util.Optional;
import java.util.function.ObjIntConsumer;
import org.agrona.DirectBuffer;
import org.agrona.MutableDirectBuffer;
import org.agrona.concurrent.UnsafeBuffer;

/**
 * How pages reach the tier and come back. Blocking, safe for any number of threads; tests put
 * faults in its place.
 */
public interface PageTransport extends AutoCloseable {
  /**
   * A page and its key. The bytes are shared, not copied.
   *
   * @param tenant that a put of it is charged to
   */
  record KeyedPage(PageKey key, ByteString page, String tenant) {
    /** A page of the default tenant. */
    public KeyedPage(PageKey key, ByteString page) {
      this(key, page, TenantName.DEFAULT);
    }

    /** Index behind the pages from {@code from} on that have its tenant. */
    static int endOfTenant(List<KeyedPage> pages, int from) {
      int end = from + 1;
      while (end < pages.size() && pages.get(end).tenant.equals(pages.get(from).tenant)) {
        end++;
      }
      return end;
    }
  }

  /**
   * Stores pages and returns once all are stored.
   *
   * @throws KvtierException as {@code Pages.Put} refuses; pages before the refused one are stored
   */
  void put(List<KeyedPage> pages);

  /**
   * Reads whole pages.
   *
   * @param consumer is given each page and the index of its key, in order, on the calling thread
   * @throws KvtierException LOST if a page is absent or its checksum failed
   */
  void get(List<PageKey> keys, ObjIntConsumer<ByteString> consumer);

  /**
   * Reads some sections of some heads of pages.
   *
   * @param consumer is given each page's sections, laid end to end by head, then section id, and
   *     the index in {@code wanted}, in order, on the calling thread
   * @throws KvtierException LOST if a page is absent or its checksum failed
   */
  void getSections(List<SectionsOf> wanted, ObjIntConsumer<ByteString> consumer);

  /**
   * Reads whole pages in place.
   *
   * @param consumer is given each page and the index of its key, in order, on the calling thread;
   *     its bytes are in memory that is used again after it returns
   * @throws KvtierException LOST if a page is absent or its checksum failed
   */
  default void read(List<PageKey> keys, PageConsumer consumer) {
    get(keys, (page, index) -> consumer.accept(inPlace(page), 0, page.size(), index));
  }

  /**
   * Reads some sections of some heads of pages in place.
   *
   * @param consumer as of {@link #getSections}; the bytes are in memory that is used again after it
   *     returns
   * @throws KvtierException LOST if a page is absent or its checksum failed
   */
  default void readSections(List<SectionsOf> wanted, PageConsumer consumer) {
    getSections(wanted, (data, index) -> consumer.accept(inPlace(data), 0, data.size(), index));
  }

  /**
   * Reads rows of some tokens of some heads of pages in place. Unless a transport knows better, the
   * whole sections are read and the rows taken out of them here.
   *
   * @param layout of the pages
   * @param consumer is given each page's rows ({@link TokenRows}), laid end to end by head, then
   *     token, and the index in {@code wanted}, in order, on the calling thread; the bytes are in
   *     memory that is used again after it returns
   * @throws KvtierException LOST if a page is absent or a checksum failed
   */
  default void readRows(PageLayout layout, List<RowsOf> wanted, PageConsumer consumer) {
    List<SectionsOf> sections = wanted.stream().map(PageTransport::sectionsOf).toList();
    readSections(
        sections,
        (data, offset, length, index) -> {
          RowsOf rows = wanted.get(index);
          MutableDirectBuffer taken = takeRows(layout, rows, data, offset);
          consumer.accept(taken, 0, taken.capacity(), index);
        });
  }

  private static SectionsOf sectionsOf(RowsOf rows) {
    return SectionsOf.newBuilder()
        .setKey(rows.getKey())
        .setHeadsLow(rows.getHeadsLow())
        .setHeadsHigh(rows.getHeadsHigh())
        .setSections(rows.getSections())
        .build();
  }

  private static MutableDirectBuffer takeRows(
      PageLayout layout, RowsOf wanted, DirectBuffer heads, int offset) {
    TokenRows rows = new TokenRows(layout, wanted.getSections());
    int count = wanted.getTokensList().stream().mapToInt(Long::bitCount).sum();
    MutableDirectBuffer taken = new UnsafeBuffer(new byte[count * rows.length()]);
    int to = 0;
    for (int head = 0; head < wanted.getTokensCount(); head++) {
      for (long left = wanted.getTokens(head); left != 0; left &= left - 1) {
        int at = offset + head * layout.lengthOf(wanted.getSections());
        rows.take(heads, at, Long.numberOfTrailingZeros(left), taken, to);
        to += rows.length();
      }
    }
    return taken;
  }

  private static DirectBuffer inPlace(ByteString bytes) {
    return new UnsafeBuffer(bytes.asReadOnlyByteBuffer());
  }

  /**
   * Attends to tokens of rot4 pages where they are. A transport that cannot says so; the pages can
   * be fetched all the same.
   *
   * @param keys all of one layer, any number of them
   * @param tokens empty: all tokens; else a bit set a key: bit t is token t
   * @return the partials over the tokens of the pages that were served; empty: pages are not
   *     attended to here
   * @throws KvtierException EXHAUSTED if there is too much of this to do, and as {@code
   *     Pages.Attend} refuses
   */
  default Optional<NearPages.Attended> attend(
      List<PageKey> keys, NearPages.Queries queries, long[] tokens) {
    return Optional.empty();
  }

  /**
   * Tells which pages are stored. Unless a transport knows better, they are read to find out.
   *
   * @return bit i for key i
   * @throws KvtierException if that cannot be told, since somebody who may have them does not
   *     answer
   */
  default BitSet contains(List<PageKey> keys) {
    BitSet stored = new BitSet(keys.size());
    for (int i = 0; i < keys.size(); i++) {
      try {
        get(keys.subList(i, i + 1), (page, index) -> {});
        stored.set(i);
      } catch (KvtierException e) {
        if (e.code() != Code.LOST) {
          throw e;
        }
      }
    }
    return stored;
  }

  /**
   * Keeps pages from being evicted until they are let go as often as they were held, whether they
   * are stored yet or not. A transport to tiers that nobody else evicts from need do nothing.
   */
  default void hold(List<PageKey> keys) {}

  /** Ends holds of pages; they stay until the tier needs their room. */
  default void letGo(List<PageKey> keys) {}

  /** Removes pages; those that are not there are no error. */
  void delete(List<PageKey> keys);

  @Override
  void close();
}
