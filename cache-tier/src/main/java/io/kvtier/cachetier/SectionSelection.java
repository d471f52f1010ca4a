package io.kvtier.cachetier;

import io.kvtier.KvtierException;
import io.kvtier.page.PageHeaderFlyweight;
import io.kvtier.page.PageLayout;
import io.kvtier.page.Pages;
import io.kvtier.page.Section;
import org.agrona.DirectBuffer;
import org.agrona.MutableDirectBuffer;

/**
 * Some sections of some KV heads of a page.
 *
 * @param headsLow heads 0..63 as a bit set
 * @param headsHigh heads 64..127 as a bit set
 * @param sections sections of each of those heads as a bit set, bit = section id
 */
public record SectionSelection(long headsLow, long headsHigh, int sections) {
  private static final int SECTIONS_ALL = (1 << Section.count()) - 1;

  public SectionSelection {
    if ((headsLow | headsHigh) == 0) {
      throw KvtierException.invalid(
          "heads is an empty set; it must have at least one of 0..%d", PageLayout.KV_HEADS_MAX - 1);
    }
    if (sections == 0) {
      throw KvtierException.invalid(
          "sections is an empty set; it must have at least one of 0..%d", Section.count() - 1);
    }
    if ((sections & ~SECTIONS_ALL) != 0) {
      throw KvtierException.invalid(
          "sections is %#x; it must be within %#x (section ids 0..%d)",
          sections, SECTIONS_ALL, Section.count() - 1);
    }
  }

  /**
   * Checks that a page of this layout has all that is selected.
   *
   * @throws KvtierException INVALID if not
   */
  void requireWithin(PageLayout layout) {
    int highest =
        headsHigh == 0
            ? Long.SIZE - 1 - Long.numberOfLeadingZeros(headsLow)
            : 2 * Long.SIZE - 1 - Long.numberOfLeadingZeros(headsHigh);
    if (highest >= layout.kvHeads()) {
      throw KvtierException.invalid(
          "heads has head %d; the page has heads 0..%d", highest, layout.kvHeads() - 1);
    }
    if ((sections & ~layout.sections()) != 0) {
      throw KvtierException.invalid(
          "sections is %#x; the page has sections %#x (codecs %s, %s)",
          sections, layout.sections(), layout.keyCodec(), layout.valueCodec());
    }
  }

  /** Heads selected. */
  int heads() {
    return Long.bitCount(headsLow) + Long.bitCount(headsHigh);
  }

  boolean hasHead(int kvHead) {
    return ((kvHead < Long.SIZE ? headsLow : headsHigh) >>> kvHead & 1) != 0;
  }

  /**
   * Asks memory for the selection and the header of a page, ahead of their use.
   *
   * @param address of the page
   */
  void ask(PageLayout layout, long address) {
    Pages.ask(layout, address, headsLow, headsHigh, sections);
  }

  /** Bytes of the selection in a page of this layout, without padding. */
  public int length(PageLayout layout) {
    return heads() * layout.lengthOf(sections);
  }

  /** Bytes of each selected section, by id. */
  public int[] lengths(PageLayout layout) {
    int[] lengths = new int[Integer.bitCount(sections)];
    int at = 0;
    for (int id = 0; id < Section.count(); id++) {
      if ((sections & 1 << id) != 0) {
        lengths[at++] = layout.length(Section.ofId(id));
      }
    }
    return lengths;
  }

  /** The sealed checksum of every selected section of a page, by head, then by section id. */
  public int[] checksums(DirectBuffer page, int offset, PageLayout layout) {
    int[] checksums = new int[heads() * Integer.bitCount(sections)];
    int at = 0;
    for (int head = 0; head < layout.kvHeads(); head++) {
      for (int id = 0; hasHead(head) && id < Section.count(); id++) {
        if ((sections & 1 << id) != 0) {
          int entry = layout.tableIndex(head, Section.ofId(id));
          checksums[at++] = PageHeaderFlyweight.sectionChecksum(page, offset, entry);
        }
      }
    }
    return checksums;
  }

  /**
   * Copies the selected sections, by head, then by section id, without padding: {@link #length}
   * bytes.
   */
  public void gather(
      DirectBuffer page, int offset, PageLayout layout, MutableDirectBuffer target, int from) {
    int at = from;
    for (int head = 0; head < layout.kvHeads(); head++) {
      for (int id = 0; hasHead(head) && id < Section.count(); id++) {
        if ((sections & 1 << id) != 0) {
          Section section = Section.ofId(id);
          int length = layout.length(section);
          page.getBytes(offset + layout.offset(head, section), target, at, length);
          at += length;
        }
      }
    }
  }
}
