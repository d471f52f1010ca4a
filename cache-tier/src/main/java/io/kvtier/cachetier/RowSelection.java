package io.kvtier.cachetier;

import io.kvtier.KvtierException;
import io.kvtier.page.PageLayout;
import io.kvtier.page.TokenRows;
import org.agrona.DirectBuffer;
import org.agrona.MutableDirectBuffer;

/** Rows of some tokens of some KV heads of a page. Immutable. */
public final class RowSelection {
  private static final int OF_TOKENS = TokenRows.ofTokens(-1);

  private final SectionSelection sections;
  private final long[] tokens;
  private final int rows;

  /**
   * A selection.
   *
   * @param sections whose rows, and of which heads
   * @param tokens for each of those heads, rising: its tokens as a bit set; kept, not copied
   * @throws KvtierException INVALID if a section is of no single token, or a set is missing or
   *     empty
   */
  public RowSelection(SectionSelection sections, long[] tokens) {
    if (TokenRows.ofTokens(sections.sections()) != sections.sections()) {
      throw KvtierException.invalid(
          "sections is %#x; rows are made of some of %#x, what else a page has belongs to no token",
          sections.sections(), OF_TOKENS);
    }
    if (tokens.length != sections.heads()) {
      throw KvtierException.invalid(
          "tokens has %d bit sets; it must have one for each of %d heads",
          tokens.length, sections.heads());
    }
    int sum = 0;
    for (int i = 0; i < tokens.length; i++) {
      if (tokens[i] == 0) {
        throw KvtierException.invalid(
            "tokens[%d] is an empty set; it must have at least one of 0..%d",
            i, PageLayout.TOKENS - 1);
      }
      sum += Long.bitCount(tokens[i]);
    }
    this.sections = sections;
    this.tokens = tokens;
    this.rows = sum;
  }

  SectionSelection sections() {
    return sections;
  }

  /** Rows selected. */
  public int rows() {
    return rows;
  }

  /** The sections that rows are made of, as a bit set. */
  public int sectionSet() {
    return sections.sections();
  }

  /**
   * Checks that a page with so many tokens has those that are selected.
   *
   * @throws KvtierException INVALID if not
   */
  void requireWithin(int pageTokens) {
    for (int i = 0; i < tokens.length && pageTokens < PageLayout.TOKENS; i++) {
      if (tokens[i] >>> pageTokens != 0) {
        throw KvtierException.invalid(
            "tokens[%d] has token %d; the page has tokens 0..%d",
            i, Long.SIZE - 1 - Long.numberOfLeadingZeros(tokens[i]), pageTokens - 1);
      }
    }
  }

  /**
   * Copies the rows, by head, then token, without padding: {@link #rows} times the row's length.
   *
   * @param taker of the page's layout and this selection's sections
   */
  public void take(
      DirectBuffer page,
      int offset,
      PageLayout layout,
      TokenRows taker,
      MutableDirectBuffer target,
      int from) {
    int at = from;
    int next = 0;
    for (int head = 0; head < layout.kvHeads(); head++) {
      if (sections.hasHead(head)) {
        for (long left = tokens[next++]; left != 0; left &= left - 1) {
          taker.takeFromPage(page, offset, head, Long.numberOfTrailingZeros(left), target, at);
          at += taker.length();
        }
      }
    }
  }
}
