package io.kvtier.gpuworker.session;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.client.PageTransport;
import io.kvtier.client.PageTransport.KeyedPage;
import io.kvtier.page.PageKey;
import java.util.ArrayList;
import java.util.List;

/**
 * Puts the pages of a session whose keys another worker may have written before, or may still be
 * writing. A key's page is never overwritten, and in nearly all cases that makes the other's writes
 * harmless: what the engine sends again are the same rows, of which every worker makes the same
 * bytes, so it does not matter whose are stored. An engine that was itself started again may go on
 * with other tokens, though; then a page of the same key and other bytes must not stay. So what is
 * there is removed first, and what is stored is read back: once our bytes are there, no late write
 * changes them.
 */
final class PagePuts {
  private PagePuts() {}

  /**
   * Puts pages and returns once they are stored.
   *
   * @throws KvtierException UNAVAILABLE if another page has a key, under the lease of a worker that
   *     may be dead: it can be removed once that lease has ended
   */
  static void replacing(PageTransport tier, List<KeyedPage> pages) {
    List<KeyedPage> own = pages.stream().filter(page -> !page.key().isOfPrefix()).toList();
    List<PageKey> keys = own.stream().map(KeyedPage::key).toList();
    if (!keys.isEmpty()) {
      tier.delete(keys);
    }
    tier.put(pages);
    List<PageKey> others = new ArrayList<>();
    tier.get(
        keys,
        (page, index) -> {
          if (!page.equals(own.get(index).page())) {
            others.add(keys.get(index));
          }
        });
    if (!others.isEmpty()) {
      throw new KvtierException(
          Code.UNAVAILABLE,
          "%d pages that an earlier worker stored are still leased, the first %s"
              .formatted(others.size(), others.getFirst()));
    }
  }
}
