package io.kvtier.cachetier;

import static io.kvtier.KvtierException.requireInRange;

import io.kvtier.KvtierException;
import io.kvtier.TenantName;
import io.kvtier.cachetier.Read.Hit;
import io.kvtier.cachetier.Read.Miss;
import io.kvtier.cachetier.Read.MissReason;
import io.kvtier.cachetier.cache.PageCache;
import io.kvtier.page.PageHeaderFlyweight;
import io.kvtier.page.PageKey;
import io.kvtier.page.PageLayout;
import io.kvtier.page.Pages;
import io.kvtier.page.Pages.Flaw;
import io.kvtier.page.TokenRows;
import java.util.List;
import org.agrona.DirectBuffer;
import org.agrona.concurrent.UnsafeBuffer;
import org.jspecify.annotations.Nullable;

/**
 * The rule of the tier over any store: nothing flawed goes in, nothing flawed comes out. A stored
 * page that fails its verification is a counted miss and is removed. Stateless but for the counts;
 * safe for use by many threads. Does not own the store.
 */
public final class PageService {
  private final PageStore store;
  private final @Nullable PageCache cache;
  private final Verification verification;
  private final PageCounts counts = new PageCounts();

  /** Serves a bare store, which knows no tenants; the tier verifies. */
  public PageService(PageStore store) {
    this.store = store;
    this.cache = null;
    this.verification = Verification.TIER;
  }

  public PageService(PageCache cache, Verification verification) {
    this.store = cache;
    this.cache = cache;
    this.verification = verification;
  }

  /** What has been done so far. */
  public PageCounts counts() {
    return counts;
  }

  /** Verifies a page and stores a copy of it for the default tenant. */
  public PutResult put(PageKey key, DirectBuffer page, int offset, int length) {
    return put(TenantName.DEFAULT, key, page, offset, length);
  }

  /**
   * Verifies a page and stores a copy of it, charged to a tenant.
   *
   * @throws KvtierException INVALID, with the flaw, if the page is not sound or does not belong
   *     under the key; EXHAUSTED if the store is full
   */
  public PutResult put(String tenant, PageKey key, DirectBuffer page, int offset, int length) {
    requireInRange("page length", length, 1, PageStore.PAGE_BYTES_MAX);
    Flaw flaw = Pages.verify(key, page, offset, length);
    if (flaw != Flaw.NONE) {
      throw KvtierException.invalid(
          "page under key %s, %d bytes, has a flaw: %s; it must be a whole page with valid"
              + " checksums that belongs under its key",
          key, length, flaw);
    }
    PutResult result =
        cache == null
            ? store.put(key, page, offset, length)
            : cache.put(tenant, key, page, offset, length);
    counts.put(result, length);
    return result;
  }

  /**
   * Verifies a page in place, if that is the tier's task, and only then lets the reader look at it.
   */
  public <R> Read<R> get(PageKey key, PageReader<R> reader) {
    return served(
        key,
        store.read(
            key,
            (page, offset, length) -> {
              if (verifies() && Pages.verify(key, page, offset, length) != Flaw.NONE) {
                return new Miss<R>(MissReason.CORRUPT);
              }
              Hit<R> hit = new Hit<>(reader.read(page, offset, length));
              counts.hit(length);
              return hit;
            }));
  }

  /**
   * Lets the reader look at a page of which the header and, if that is the tier's task, some
   * sections have been verified, and nothing else.
   *
   * @throws KvtierException INVALID if the page has no such head or section
   */
  public <R> Read<R> getSections(PageKey key, SectionSelection selection, PageReader<R> reader) {
    return sections(key, selection, verifies(), reader);
  }

  /**
   * As {@link #getSections(PageKey, SectionSelection, PageReader)}, verified whoever else verifies:
   * for what is computed here from the sections.
   */
  public <R> Read<R> readSections(PageKey key, SectionSelection selection, PageReader<R> reader) {
    return sections(key, selection, true, reader);
  }

  private <R> Read<R> sections(
      PageKey key, SectionSelection selection, boolean verified, PageReader<R> reader) {
    return served(
        key,
        store.read(
            key,
            (page, offset, length) -> {
              if (Pages.verifyHeader(key, page, offset, length) != Flaw.NONE) {
                return new Miss<R>(MissReason.CORRUPT);
              }
              PageLayout layout = PageLayout.of(page, offset);
              selection.requireWithin(layout);
              if (verified && !sound(page, offset, layout, selection)) {
                return new Miss<R>(MissReason.CORRUPT);
              }
              Hit<R> hit = new Hit<>(reader.read(page, offset, length));
              counts.hit(selection.length(layout));
              return hit;
            }));
  }

  /**
   * Lets the reader take rows out of a page of which the header and the sections that rows are
   * taken from have been verified, whoever else verifies: rows carry no checksums of the page's.
   *
   * @throws KvtierException INVALID if the page has no such head, section or token
   */
  public <R> Read<R> rows(PageKey key, RowSelection selection, RowReader<R> reader) {
    SectionSelection sections = selection.sections();
    return served(
        key,
        store.read(
            key,
            (page, offset, length) -> {
              PageLayout expected = lastLayout;
              if (expected != null && expected.pageLength() == length) {
                sections.ask(expected, page.addressOffset() + offset);
              }
              if (Pages.verifyHeader(key, page, offset, length) != Flaw.NONE) {
                return new Miss<R>(MissReason.CORRUPT);
              }
              PageLayout layout = PageLayout.of(page, offset);
              lastLayout = layout;
              sections.requireWithin(layout);
              selection.requireWithin(PageHeaderFlyweight.tokens(page, offset));
              if (!sound(page, offset, layout, sections)) {
                return new Miss<R>(MissReason.CORRUPT);
              }
              TokenRows rows = new TokenRows(layout, selection.sectionSet());
              Hit<R> hit = new Hit<>(reader.read(page, offset, layout, rows));
              counts.hit(selection.rows() * rows.length());
              return hit;
            }));
  }

  /** Takes rows out of a page in place, under its lock. */
  @FunctionalInterface
  public interface RowReader<R> {
    R read(DirectBuffer page, int offset, PageLayout layout, TokenRows rows);
  }

  /** The layout of a page that was read of late: most often the next one's too. */
  private volatile @Nullable PageLayout lastLayout;

  private boolean verifies() {
    return verification == Verification.TIER;
  }

  /** Copies some sections of a page, by head, then by section id, without padding. */
  public Read<byte[]> getSections(PageKey key, SectionSelection selection) {
    return getSections(
        key,
        selection,
        (page, offset, length) -> {
          PageLayout layout = PageLayout.of(page, offset);
          byte[] data = new byte[selection.length(layout)];
          selection.gather(page, offset, layout, new UnsafeBuffer(data), 0);
          return data;
        });
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

  /**
   * Verifies a page, whoever verifies otherwise, and removes it if it is flawed, which counts as a
   * miss; whether it was.
   */
  public boolean check(PageKey key) {
    Boolean flawed =
        store.read(
            key, (page, offset, length) -> Pages.verify(key, page, offset, length) != Flaw.NONE);
    if (flawed == null || !flawed) {
      return false;
    }
    var _ = served(key, new Miss<Boolean>(MissReason.CORRUPT));
    return true;
  }

  /**
   * Takes note of pages that another process has read in the tier's files.
   *
   * @param keys of some of them; those that are not stored are passed over
   * @param reads not negative
   * @param bytes that were read, not negative
   */
  public void readInFiles(List<PageKey> keys, long reads, long bytes) {
    requireInRange("number of reads", reads, 0, Long.MAX_VALUE);
    requireInRange("bytes read", bytes, 0, Long.MAX_VALUE);
    counts.readInFiles(reads, bytes);
    if (cache != null) {
      keys.forEach(cache::touch);
    }
  }

  /** Whether the key's page is stored. */
  public boolean contains(PageKey key) {
    return store.contains(key);
  }

  /** Removes a page; false if there was none, or it is leased. */
  public boolean delete(PageKey key) {
    return store.delete(key);
  }
}
