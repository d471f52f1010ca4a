package io.kvtier.gpuworker.session;

import io.kvtier.client.PageTransport;
import io.kvtier.page.PageKey;
import java.util.List;

/** Where sessions keep their pages. Safe for any number of threads. */
@FunctionalInterface
public interface SessionTiers {
  /**
   * The tier for a new session.
   *
   * @param placement what it is placed by: its id, or what it has in common with the sessions that
   *     it shares pages with
   * @throws io.kvtier.KvtierException UNAVAILABLE if there is none
   */
  PageTransport tierFor(String placement);

  /**
   * The tier for a session that is read back: where its pages are. Tiers may have come and gone
   * since it was opened, so that a new session would be placed elsewhere.
   *
   * @param keys some of its pages, from the first on
   * @throws io.kvtier.KvtierException UNAVAILABLE if there is none, or some do not tell
   */
  default PageTransport tierHolding(String placement, List<PageKey> keys) {
    return tierFor(placement);
  }
}
