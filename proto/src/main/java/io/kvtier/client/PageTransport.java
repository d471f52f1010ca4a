package io.kvtier.client;

import com.google.protobuf.ByteString;
import io.kvtier.KvtierException;
import io.kvtier.page.PageKey;
import io.kvtier.v1.SectionsOf;
import java.util.List;
import java.util.function.ObjIntConsumer;
import org.agrona.DirectBuffer;
import org.agrona.concurrent.UnsafeBuffer;

/**
 * How pages reach the tier and come back. Blocking, safe for any number of threads; tests put
 * faults in its place.
 */
public interface PageTransport extends AutoCloseable {
  /** A page and its key. The bytes are shared, not copied. */
  record KeyedPage(PageKey key, ByteString page) {}

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

  private static DirectBuffer inPlace(ByteString bytes) {
    return new UnsafeBuffer(bytes.asReadOnlyByteBuffer());
  }

  /** Removes pages; those that are not there are no error. */
  void delete(List<PageKey> keys);

  @Override
  void close();
}
