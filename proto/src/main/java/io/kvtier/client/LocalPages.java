package io.kvtier.client;

import static io.kvtier.page.PageLayout.TOKENS;

import io.kvtier.mapped.MappedPages;
import io.kvtier.page.Checksums;
import io.kvtier.page.PageHeaderFlyweight;
import io.kvtier.page.PageKey;
import io.kvtier.page.PageLayout;
import io.kvtier.page.Pages;
import io.kvtier.page.Pages.Flaw;
import io.kvtier.page.Section;
import io.kvtier.page.TokenRows;
import io.kvtier.v1.RowsOf;
import io.kvtier.v1.SectionsOf;
import io.kvtier.wire.Staging;
import java.util.Queue;
import java.util.concurrent.ArrayBlockingQueue;
import java.util.concurrent.atomic.AtomicReference;
import java.util.concurrent.atomic.LongAdder;
import org.agrona.DirectBuffer;
import org.agrona.MutableDirectBuffer;
import org.jspecify.annotations.Nullable;

/**
 * A tier's pages read from its mapped files, where both are on one host. What is wanted is copied
 * out while nobody holds the page; it counts only if the page was there all the time, which {@link
 * MappedPages} tells, and if the checksums of what was read hold. Everything else is false: read it
 * over the wire, where the tier says why. Safe for any number of threads.
 */
final class LocalPages {
  private static final int PAGE_BYTES_MAX = 16 << 20;
  private static final int KEPT_MAX = 8;

  private final MappedPages pages;
  private final boolean verify;
  private final ReadReports reports;
  private final LongAdder hits = new LongAdder();

  /** One that is at hand without a lock; the others are in {@link #kept}. */
  private final AtomicReference<Memory> last = new AtomicReference<>();

  private final Queue<Memory> kept = new ArrayBlockingQueue<>(KEPT_MAX);

  LocalPages(MappedPages pages, boolean verify, ReadReports reports) {
    this.reports = reports;
    this.pages = pages;
    this.verify = verify;
  }

  /** What a reader copies to; for one thread at a time. */
  static final class Memory {
    private final Staging header = Staging.offHeap(PAGE_BYTES_MAX);
    private final Staging body = Staging.offHeap(PAGE_BYTES_MAX);

    /** What was read last, from 0 on. */
    DirectBuffer body() {
      return body.buffer();
    }
  }

  Memory borrow() {
    Memory memory = last.getAndSet(null);
    if (memory == null) {
      memory = kept.poll();
    }
    return memory == null ? new Memory() : memory;
  }

  void giveBack(Memory memory) {
    if (!last.compareAndSet(null, memory)) {
      kept.offer(memory);
    }
  }

  /** Tells nothing more of reads. */
  void close() {
    reports.close();
  }

  boolean ended() {
    return pages.ended();
  }

  /** Reads that were served from here. */
  long hits() {
    return hits.sum();
  }

  boolean has(PageKey key) {
    return pages.has(key);
  }

  /** Copies a whole page; its bytes, or 0. */
  int page(PageKey key, Memory memory) {
    int[] copied = new int[1];
    boolean there =
        pages.read(
            key,
            (page, length) -> {
              page.getBytes(0, memory.body.ensure(length, 0), 0, length);
              copied[0] = length;
              return true;
            });
    // Of the copy, which nobody changes, and which is in the cache.
    return counted(
        key,
        there && (!verify || Pages.verify(key, memory.body(), 0, copied[0]) == Flaw.NONE),
        copied[0]);
  }

  /** Copies sections as GetSections lays them out; their bytes, or 0. */
  int sections(SectionsOf wanted, Memory memory) {
    PageKey key = PageKey.of(wanted.getKey());
    int[] copied = new int[1];
    boolean there =
        pages.read(
            key,
            (page, length) -> {
              PageLayout layout = layout(key, page, length, memory);
              int set = wanted.getSections();
              if (layout == null
                  || !has(layout, wanted.getHeadsLow(), wanted.getHeadsHigh())
                  || set == 0
                  || (set & ~layout.sections()) != 0) {
                return false;
              }
              copied[0] = gather(page, layout, wanted, memory);
              return copied[0] > 0;
            });
    return counted(key, there, copied[0]);
  }

  /** Asks memory for what {@link #askForRows} looks at, ahead of it. */
  void askForPlace(RowsOf wanted) {
    if (hasKey(wanted)) {
      pages.askForPlace(PageKey.of(wanted.getKey()));
    }
  }

  /** Asks memory for what {@link #rows} looks at, ahead of it. */
  void askForRows(RowsOf wanted, RowsAsked asked) {
    long place = hasKey(wanted) ? pages.placeOf(PageKey.of(wanted.getKey())) : 0;
    if (place != 0) {
      Pages.ask(
          asked.layout(), place, wanted.getHeadsLow(), wanted.getHeadsHigh(), wanted.getSections());
    }
  }

  /** What is no key is refused when its turn comes. */
  private static boolean hasKey(RowsOf wanted) {
    return wanted.getKey().size() == PageKey.LENGTH;
  }

  /** Takes rows out as GetRows lays them out; their bytes, or 0. */
  int rows(RowsOf wanted, RowsAsked asked, Memory memory) {
    PageKey key = PageKey.of(wanted.getKey());
    int[] taken = new int[1];
    boolean there =
        pages.read(
            key,
            (page, length) -> {
              PageLayout layout = layout(key, page, length, memory);
              if (layout == null
                  || !layout.equals(asked.layout())
                  || !has(layout, wanted.getHeadsLow(), wanted.getHeadsHigh())
                  || wanted.getTokensCount()
                      != Long.bitCount(wanted.getHeadsLow())
                          + Long.bitCount(wanted.getHeadsHigh())) {
                return false;
              }
              taken[0] = take(page, layout, wanted, asked.of(wanted), memory);
              return taken[0] > 0;
            });
    return counted(key, there, taken[0]);
  }

  private int counted(PageKey key, boolean sound, int bytes) {
    if (!sound) {
      return 0;
    }
    hits.increment();
    reports.read(key, bytes);
    return bytes;
  }

  /**
   * Copies the header, so that nothing of it changes between its check and its use, and checks the
   * copy; null: it is none, or of another page.
   */
  private static @Nullable PageLayout layout(
      PageKey key, DirectBuffer page, int length, Memory memory) {
    int headerLength = PageHeaderFlyweight.headerLength(page, 0);
    if (headerLength < PageHeaderFlyweight.TABLE_OFFSET || headerLength > length) {
      return null;
    }
    MutableDirectBuffer header = memory.header.ensure(headerLength, 0);
    page.getBytes(0, header, 0, headerLength);
    return PageHeaderFlyweight.headerLength(header, 0) == headerLength
            && Pages.verifyHeader(key, header, 0, length) == Flaw.NONE
        ? PageLayout.of(header, 0)
        : null;
  }

  /** Whether some heads are asked, and all of them are there. */
  private static boolean has(PageLayout layout, long low, long high) {
    int heads = layout.kvHeads();
    boolean none = (low | high) == 0;
    boolean beyond =
        heads < Long.SIZE
            ? (low >>> heads | high) != 0
            : heads < 2 * Long.SIZE && high >>> (heads - Long.SIZE) != 0;
    return !none && !beyond;
  }

  private static boolean asked(int head, long low, long high) {
    return ((head < Long.SIZE ? low : high) >>> head & 1) != 0;
  }

  private int gather(DirectBuffer page, PageLayout layout, SectionsOf wanted, Memory memory) {
    int set = wanted.getSections();
    int heads = Long.bitCount(wanted.getHeadsLow()) + Long.bitCount(wanted.getHeadsHigh());
    MutableDirectBuffer target = memory.body.ensure(heads * layout.lengthOf(set), 0);
    DirectBuffer header = memory.header.buffer();
    int at = 0;
    for (int head = 0; head < layout.kvHeads(); head++) {
      int left = asked(head, wanted.getHeadsLow(), wanted.getHeadsHigh()) ? set : 0;
      for (; left != 0; left &= left - 1) {
        Section section = Section.ofId(Integer.numberOfTrailingZeros(left));
        int length = layout.length(section);
        page.getBytes(layout.offset(head, section), target, at, length);
        int entry = layout.tableIndex(head, section);
        if (verify
            && Checksums.crc32c(target, at, length)
                != PageHeaderFlyweight.sectionChecksum(header, 0, entry)) {
          return 0;
        }
        at += length;
      }
    }
    return at;
  }

  /** The sections are checked where they lie: few of their bytes are copied. */
  private int take(
      DirectBuffer page, PageLayout layout, RowsOf wanted, TokenRows rows, Memory memory) {
    long there = -1L >>> (TOKENS - PageHeaderFlyweight.tokens(memory.header.buffer(), 0));
    int at = 0;
    int next = 0;
    for (int head = 0; head < layout.kvHeads(); head++) {
      if (!asked(head, wanted.getHeadsLow(), wanted.getHeadsHigh())) {
        continue;
      }
      long tokens = wanted.getTokens(next++);
      if (tokens == 0
          || (tokens & ~there) != 0
          || (verify
              && Pages.verifySections(page, 0, layout, head, rows.sectionSet()) != Flaw.NONE)) {
        return 0;
      }
      MutableDirectBuffer target =
          memory.body.ensure(at + Long.bitCount(tokens) * rows.length(), at);
      for (long left = tokens; left != 0; left &= left - 1) {
        int token = Long.numberOfTrailingZeros(left);
        rows.takeFromPage(page, 0, head, token, target, at);
        at += rows.length();
      }
    }
    return at;
  }
}
