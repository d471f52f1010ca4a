package io.kvtier.client;

import io.kvtier.page.PageLayout;
import io.kvtier.page.TokenRows;
import io.kvtier.v1.RowsOf;
import org.jspecify.annotations.Nullable;

/**
 * How rows that are asked for lie: most often those of all pages are of the same sections. For one
 * thread at a time.
 */
final class RowsAsked {
  private final PageLayout layout;
  private @Nullable TokenRows last;

  RowsAsked(PageLayout layout) {
    this.layout = layout;
  }

  PageLayout layout() {
    return layout;
  }

  TokenRows of(RowsOf wanted) {
    TokenRows rows = last;
    if (rows == null || rows.sectionSet() != wanted.getSections()) {
      rows = new TokenRows(layout, wanted.getSections());
      last = rows;
    }
    return rows;
  }

  /** Bytes of the rows of a page. */
  int bytes(RowsOf wanted) {
    int count = 0;
    for (int i = 0; i < wanted.getTokensCount(); i++) {
      count += Long.bitCount(wanted.getTokens(i));
    }
    return count * of(wanted).length();
  }
}
