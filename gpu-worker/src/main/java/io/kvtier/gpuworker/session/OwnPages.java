package io.kvtier.gpuworker.session;

import io.kvtier.client.PageTransport;
import io.kvtier.gpuworker.device.LayerShape;
import io.kvtier.page.PageKey;
import io.kvtier.page.PageLayout;
import java.util.ArrayList;
import java.util.List;

/**
 * The pages that are a session's alone, and what becomes of them when it ends: deleted, or let go
 * for another worker to go on with. What the tier could not do is tried again. Guarded by the
 * session's life.
 */
final class OwnPages {
  private final PageTransport tier;
  private final SharedPages shared;
  private final PageLayout sinks;
  private List<PageKey> left = List.of();
  private boolean deletes;

  OwnPages(LayerShape shape, PageTransport tier, SharedPages shared) {
    this.tier = tier;
    this.shared = shared;
    this.sinks = new SinkPage(shape).layout();
  }

  /** Of a session's pages those that it may delete, and its sink rows with the first. */
  List<PageKey> keys(List<PageKey> pages) {
    List<PageKey> own = new ArrayList<>();
    for (PageKey key : pages) {
      if (!key.isOfPrefix() && !shared.contains(key)) {
        own.add(key);
        if (key.pageIndex() == 0) {
          own.add(key.inLayout(sinks));
        }
      }
    }
    return own;
  }

  /**
   * Notes what the session had when it ended.
   *
   * @param delete whether nobody goes on with it
   */
  void leave(List<PageKey> pages, boolean delete) {
    left = keys(pages);
    deletes = delete;
  }

  /**
   * Does with the pages what is to become of them.
   *
   * @throws io.kvtier.KvtierException if the tier does not; called again, it tries again
   */
  void settle() {
    if (!left.isEmpty() && deletes) {
      tier.delete(left);
    } else if (!left.isEmpty()) {
      tier.letGo(left);
    }
    left = List.of();
    shared.letGo();
  }
}
