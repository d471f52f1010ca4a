package io.kvtier.cachetier;

import static io.kvtier.KvtierException.requireInRange;

import io.kvtier.KvtierException;
import io.kvtier.cachetier.Read.Hit;
import io.kvtier.cachetier.Read.Miss;
import io.kvtier.cachetier.Read.MissReason;
import io.kvtier.page.PageKey;
import io.kvtier.page.PageLayout;
import io.kvtier.page.Pages;
import io.kvtier.page.Pages.Flaw;
import org.agrona.DirectBuffer;
import org.jspecify.annotations.Nullable;

/**
 * The rule of the tier over any store: nothing flawed goes in, nothing flawed comes out. A stored
 * page that fails its verification is a counted miss and is removed. Stateless but for the counts;
 * safe for use by many threads. Does not own the store.
 */
public final class PageService {
  private final PageStore store;
  private final PageCounts counts = new PageCounts();

  public PageService(PageStore store) {
    this.store = store;
  }

  /** What has been done so far. */
  public PageCounts counts() {
    return counts;
  }

  /**
   * Verifies a page and stores a copy of it.
   *
   * @throws KvtierException INVALID, with the flaw, if the page is not sound or does not belong
   *     under the key; EXHAUSTED if the store is full
   */
  public PutResult put(PageKey key, DirectBuffer page, int offset, int length) {
    requireInRange("page length", length, 1, PageStore.PAGE_BYTES_MAX);
    Flaw flaw = Pages.verify(key, page, offset, length);
    if (flaw != Flaw.NONE) {
      throw KvtierException.invalid(
          "page under key %s, %d bytes, has a flaw: %s; it must be a whole page with valid"
              + " checksums that belongs under its key",
          key, length, flaw);
    }
    PutResult result = store.put(key, page, offset, length);
    counts.put(result, length);
    return result;
  }

  /** Verifies a page in place, and only then lets the reader look at it. */
  public <R> Read<R> get(PageKey key, PageReader<R> reader) {
    return served(
        key,
        store.read(
            key,
            (page, offset, length) -> {
              if (Pages.verify(key, page, offset, length) != Flaw.NONE) {
                return new Miss<R>(MissReason.CORRUPT);
              }
              Hit<R> hit = new Hit<>(reader.read(page, offset, length));
              counts.hit(length);
              return hit;
            }));
  }

  /**
   * Copies some sections of a page, by head, then by section id, without padding. Verifies the
   * header and what is asked, nothing else.
   *
   * @throws KvtierException INVALID if the page has no such head or section
   */
  public Read<byte[]> getSections(PageKey key, SectionSelection selection) {
    return served(
        key,
        store.read(
            key,
            (page, offset, length) -> {
              if (Pages.verifyHeader(page, offset, length) != Flaw.NONE) {
                return new Miss<byte[]>(MissReason.CORRUPT);
              }
              PageLayout layout = PageLayout.of(page, offset);
              selection.requireWithin(layout);
              if (!sound(page, offset, layout, selection)) {
                return new Miss<byte[]>(MissReason.CORRUPT);
              }
              byte[] data = selection.gather(page, offset, layout);
              counts.hit(data.length);
              return new Hit<>(data);
            }));
  }

  /**
   * Verifies a page's header and some of its sections in place, and only then lets the reader look
   * at them.
   *
   * @throws KvtierException INVALID if the page has no such head or section
   */
  public <R> Read<R> readSections(PageKey key, SectionSelection selection, PageReader<R> reader) {
    return served(
        key,
        store.read(
            key,
            (page, offset, length) -> {
              if (Pages.verifyHeader(page, offset, length) != Flaw.NONE) {
                return new Miss<R>(MissReason.CORRUPT);
              }
              PageLayout layout = PageLayout.of(page, offset);
              selection.requireWithin(layout);
              if (!sound(page, offset, layout, selection)) {
                return new Miss<R>(MissReason.CORRUPT);
              }
              Hit<R> hit = new Hit<>(reader.read(page, offset, length));
              counts.hit(selection.length(layout));
              return hit;
            }));
  }

  private static boolean sound(
      DirectBuffer page, int offset, PageLayout layout, SectionSelection selection) {
    for (int head = 0; head < layout.kvHeads(); head++) {
      if (selection.hasHead(head)
          && Pages.verifySections(page, offset, layout, head, selection.sections()) != Flaw.NONE) {
        return false;
      }
    }
    return true;
  }

  /** Counts a miss, and removes the page if it is still the flawed one. */
  private <R> Read<R> served(PageKey key, @Nullable Read<R> read) {
    Read<R> outcome = read == null ? new Miss<>(MissReason.ABSENT) : read;
    if (outcome instanceof Miss<R>(MissReason reason)) {
      counts.miss(reason);
      if (reason == MissReason.CORRUPT) {
        store.deleteIf(
            key, (page, offset, length) -> Pages.verify(key, page, offset, length) != Flaw.NONE);
      }
    }
    return outcome;
  }

  /** Whether the key's page is stored. */
  public boolean contains(PageKey key) {
    return store.contains(key);
  }

  /** Removes a page; false if there was none. */
  public boolean delete(PageKey key) {
    return store.delete(key);
  }
}
