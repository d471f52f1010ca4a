package io.kvtier.cachetier.cache;

import io.kvtier.page.PageKey;
import java.util.List;

/**
 * The order in which pages that may be evicted go, by recency and frequency: segmented LRU
 * (Karedla, Love, Wherry 1994). Pages read since they were stored are apart from those that were
 * not, and may have up to 4/5 of the bytes; within each segment the page goes first whose last use
 * is longest ago. So a stream of pages that nobody reads again does not flush those that are read,
 * and a page just stored is never the next to go while older ones are unread: it has been
 * acknowledged, where W-TinyLFU would turn it away.
 *
 * <p>A page is added and removed under its key's lock alone; the rest is for any thread.
 */
final class EvictionOrder {
  private static final int READ_SHARE_NUMERATOR = 4;
  private static final int READ_SHARE_DENOMINATOR = 5;

  private final RecencyList unread = new RecencyList();
  private final RecencyList read = new RecencyList();

  /** Adds a page as just used; no effect if it is there. */
  void add(CachedPage page) {
    (page.read ? read : unread).add(page);
  }

  /** Removes a page; no effect if it is not there. */
  void remove(CachedPage page) {
    (page.read ? read : unread).remove(page);
  }

  /** A page of the read segment has been used. */
  void touch(PageKey key) {
    read.touch(key);
  }

  /** Pages to go first, as many as have so many bytes together or fewer; none: there are none. */
  List<CachedPage> coldest(long bytesWanted) {
    long readBytes = read.bytes();
    boolean readHasItsShare =
        readBytes / READ_SHARE_NUMERATOR >= (readBytes + unread.bytes()) / READ_SHARE_DENOMINATOR;
    List<CachedPage> coldest = (readHasItsShare ? read : unread).coldest(bytesWanted);
    return coldest.isEmpty() ? (readHasItsShare ? unread : read).coldest(bytesWanted) : coldest;
  }

  /** Sum of the lengths of the pages in the order. */
  long bytes() {
    return unread.bytes() + read.bytes();
  }

  /** Pages in the order. */
  long count() {
    return unread.count() + read.count();
  }
}
