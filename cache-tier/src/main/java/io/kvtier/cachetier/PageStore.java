package io.kvtier.cachetier;

import io.kvtier.KvtierException;
import io.kvtier.page.PageKey;
import java.util.function.ObjIntConsumer;
import org.agrona.DirectBuffer;
import org.jspecify.annotations.Nullable;

/**
 * Immutable pages by key, bounded in bytes. A key's page is never overwritten: it is there whole or
 * not at all. Stores what it is given; whether that is a sound page is the caller's question
 * ({@link PageService}).
 *
 * <p>Safe for use by many threads. Every call completes on the caller's thread. After {@link
 * #close} every call but {@code close} and the counts throws {@link KvtierException} UNAVAILABLE.
 */
public interface PageStore extends AutoCloseable {
  /** Longest page that any store takes, in bytes. */
  int PAGE_BYTES_MAX = 16 << 20;

  /**
   * Stores a copy of a page; the buffer is the caller's again when the call returns.
   *
   * @throws KvtierException EXHAUSTED if the store is full, INVALID if the length is not 1..{@link
   *     #PAGE_BYTES_MAX}; nothing is stored then
   */
  PutResult put(PageKey key, DirectBuffer page, int offset, int length);

  /**
   * Lets the reader look at a page in place.
   *
   * @return what the reader returned, or null if there is no such page
   */
  <R> @Nullable R read(PageKey key, PageReader<R> reader);

  /** Whether the key's page is stored. */
  boolean contains(PageKey key);

  /** Removes a page; false if there was none. */
  boolean delete(PageKey key);

  /**
   * Removes a page if the condition holds, asked under a lock that keeps the page as it is until it
   * is removed; so a page stored anew since the caller's last look is judged by itself.
   */
  boolean deleteIf(PageKey key, PageReader<Boolean> condition);

  /**
   * Shows the key and the length of every page that is stored from before the call until after it;
   * of others some. The visitor is called under a lock: it must not call the store.
   */
  void forEach(ObjIntConsumer<PageKey> visitor);

  /** Pages stored. */
  long pages();

  /** Sum of the lengths of the pages stored and of those being stored now. */
  long bytesUsed();

  /** Upper bound of {@link #bytesUsed}. */
  long bytesMax();

  /** Releases everything; waits for calls under way. Idempotent. */
  @Override
  void close();
}
