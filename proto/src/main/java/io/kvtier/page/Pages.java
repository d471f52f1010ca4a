package io.kvtier.page;

import io.kvtier.KvtierException;
import java.util.zip.CRC32C;
import org.agrona.DirectBuffer;
import org.agrona.MutableDirectBuffer;

/**
 * Seals and verifies whole pages. Stateless; a page is read only after {@link #verify} found
 * nothing.
 */
public final class Pages {
  /** Why a page is refused. */
  public enum Flaw {
    NONE,
    /** Shorter than a header, or of another length than its header says. */
    LENGTH,
    /** Not a page at all. */
    MAGIC,
    /** A page of a version that this build does not read. */
    VERSION,
    HEADER_CHECKSUM,
    /** Header fields that contradict each other. */
    HEADER_FIELDS,
    SECTION_CHECKSUM,
    /** Sound, but stored under a key of another layer, codec or model. */
    KEY
  }

  private Pages() {}

  /**
   * Writes the header, the section table and all checksums of a page whose sections have been
   * written. Padding between sections must be zero already.
   */
  public static void seal(
      MutableDirectBuffer page, int offset, PageLayout layout, PageIdentity identity) {
    PageHeaderFlyweight.write(page, offset, layout, identity);
    for (int head = 0; head < layout.kvHeads(); head++) {
      for (int id = 0; id < Section.count(); id++) {
        if ((layout.sections() & 1 << id) != 0) {
          Section section = Section.ofId(id);
          int at = layout.offset(head, section);
          int length = layout.length(section);
          int crc = Checksums.crc32c(page, offset + at, length);
          int entry = layout.tableIndex(head, section);
          PageHeaderFlyweight.writeEntry(page, offset, entry, at, length, crc);
        }
      }
    }
    PageHeaderFlyweight.writeChecksum(
        page, offset, headerChecksum(page, offset, layout.headerLength()));
  }

  /**
   * Checks a whole page: its header, its table, and every section's checksum. Reads nothing beyond
   * {@code length} bytes.
   */
  public static Flaw verify(DirectBuffer page, int offset, int length) {
    Flaw flaw = verifyHeader(page, offset, length);
    if (flaw != Flaw.NONE) {
      return flaw;
    }
    PageLayout layout = PageLayout.of(page, offset);
    for (int head = 0; head < layout.kvHeads(); head++) {
      flaw = verifySections(page, offset, layout, head, layout.sections());
      if (flaw != Flaw.NONE) {
        return flaw;
      }
    }
    return Flaw.NONE;
  }

  /** As {@link #verify(DirectBuffer, int, int)}, and that the page belongs under the key. */
  public static Flaw verify(PageKey key, DirectBuffer page, int offset, int length) {
    Flaw flaw = verify(page, offset, length);
    return flaw != Flaw.NONE ? flaw : verifyKey(key, page, offset);
  }

  /**
   * As {@link #verifyHeader(DirectBuffer, int, int)}, and that the page belongs under the key. Some
   * sections of a page are only as good as this: their checksums say nothing of whose they are.
   */
  public static Flaw verifyHeader(PageKey key, DirectBuffer page, int offset, int length) {
    Flaw flaw = verifyHeader(page, offset, length);
    return flaw != Flaw.NONE ? flaw : verifyKey(key, page, offset);
  }

  private static Flaw verifyKey(PageKey key, DirectBuffer page, int offset) {
    return key.matches(
            identity(page, offset), PageLayout.of(page, offset), headerChecksum(page, offset))
        ? Flaw.NONE
        : Flaw.KEY;
  }

  /** Checks a page's header and section table alone. */
  public static Flaw verifyHeader(DirectBuffer page, int offset, int length) {
    if (length < PageHeaderFlyweight.TABLE_OFFSET) {
      return Flaw.LENGTH;
    }
    if (PageHeaderFlyweight.magic(page, offset) != PageHeaderFlyweight.MAGIC) {
      return Flaw.MAGIC;
    }
    if (PageHeaderFlyweight.version(page, offset) != PageHeaderFlyweight.VERSION) {
      return Flaw.VERSION;
    }
    int headerLength = PageHeaderFlyweight.headerLength(page, offset);
    if (headerLength < PageHeaderFlyweight.TABLE_OFFSET || headerLength > length) {
      return Flaw.LENGTH;
    }
    if (headerChecksum(page, offset, headerLength) != PageHeaderFlyweight.checksum(page, offset)) {
      return Flaw.HEADER_CHECKSUM;
    }
    return verifyFields(page, offset, length);
  }

  private static Flaw verifyFields(DirectBuffer page, int offset, int length) {
    PageLayout layout;
    try {
      layout = PageLayout.of(page, offset);
      identity(page, offset);
    } catch (KvtierException e) {
      return Flaw.HEADER_FIELDS;
    }
    if (PageHeaderFlyweight.headerLength(page, offset) != layout.headerLength()) {
      return Flaw.HEADER_FIELDS;
    }
    if (PageHeaderFlyweight.pageLength(page, offset) != layout.pageLength()
        || length != layout.pageLength()) {
      return Flaw.LENGTH;
    }
    for (int head = 0; head < layout.kvHeads(); head++) {
      for (int id = 0; id < Section.count(); id++) {
        if ((layout.sections() & 1 << id) != 0 && !entryFits(page, offset, layout, head, id)) {
          return Flaw.HEADER_FIELDS;
        }
      }
    }
    return Flaw.NONE;
  }

  private static boolean entryFits(
      DirectBuffer page, int offset, PageLayout layout, int head, int id) {
    Section section = Section.ofId(id);
    int entry = layout.tableIndex(head, section);
    return PageHeaderFlyweight.sectionOffset(page, offset, entry) == layout.offset(head, section)
        && PageHeaderFlyweight.sectionLength(page, offset, entry) == layout.length(section);
  }

  /** Checks the checksums of some sections of one head of a page whose header has been verified. */
  public static Flaw verifySections(
      DirectBuffer page, int offset, PageLayout layout, int kvHead, int sectionSet) {
    for (int id = 0; id < Section.count(); id++) {
      if ((sectionSet & 1 << id) != 0) {
        Section section = Section.ofId(id);
        int crc =
            Checksums.crc32c(page, offset + layout.offset(kvHead, section), layout.length(section));
        int entry = layout.tableIndex(kvHead, section);
        if (crc != PageHeaderFlyweight.sectionChecksum(page, offset, entry)) {
          return Flaw.SECTION_CHECKSUM;
        }
      }
    }
    return Flaw.NONE;
  }

  /**
   * Asks memory for a page's header and sections ahead of their use. What is not in the layout is
   * not asked for.
   *
   * @param address where a page of the layout seems to begin; nothing is read there
   * @param headsLow heads 0..63 as a bit set
   * @param headsHigh heads 64..127 as a bit set
   */
  public static void ask(
      PageLayout layout, long address, long headsLow, long headsHigh, int sectionSet) {
    Prefetch.lines(address, layout.headerLength());
    for (int head = 0; head < layout.kvHeads(); head++) {
      int left = sectionSet & layout.sections();
      if (((head < Long.SIZE ? headsLow : headsHigh) >>> head & 1) == 0) {
        left = 0;
      }
      for (; left != 0; left &= left - 1) {
        Section section = Section.ofId(Integer.numberOfTrailingZeros(left));
        Prefetch.lines(address + layout.offset(head, section), layout.length(section));
      }
    }
  }

  /** The checksum of a sealed page's header, and through it of all its sections. */
  public static int headerChecksum(DirectBuffer page, int offset) {
    return PageHeaderFlyweight.checksum(page, offset);
  }

  /** What a verified page's header says of its contents. */
  public static PageIdentity identity(DirectBuffer page, int offset) {
    return new PageIdentity(
        new Fingerprint(
            page.getLong(
                offset + PageHeaderFlyweight.FINGERPRINT_OFFSET, java.nio.ByteOrder.BIG_ENDIAN),
            page.getLong(
                offset + PageHeaderFlyweight.FINGERPRINT_OFFSET + Long.BYTES,
                java.nio.ByteOrder.BIG_ENDIAN)),
        PageHeaderFlyweight.layer(page, offset),
        PageHeaderFlyweight.firstPosition(page, offset),
        PageHeaderFlyweight.tokens(page, offset));
  }

  /** CRC32C over the header and its table, with the checksum's own four bytes taken as zero. */
  private static int headerChecksum(DirectBuffer page, int offset, int headerLength) {
    CRC32C crc = new CRC32C();
    Checksums.update(crc, page, offset, PageHeaderFlyweight.CHECKSUM_OFFSET);
    crc.update(ZERO_WORD);
    Checksums.update(
        crc,
        page,
        offset + PageHeaderFlyweight.TABLE_OFFSET,
        headerLength - PageHeaderFlyweight.TABLE_OFFSET);
    return (int) crc.getValue();
  }

  private static final byte[] ZERO_WORD = new byte[Integer.BYTES];
}
