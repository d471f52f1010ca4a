package io.kvtier.gpuworker.session;

import static io.kvtier.page.PageLayout.TOKENS;

import io.kvtier.client.PageTransport;
import io.kvtier.page.PageKey;
import io.kvtier.v1.TokenRange;
import java.util.ArrayList;
import java.util.BitSet;
import java.util.List;

/** Tells which pages of a session no tier has any more. Safe for any number of threads. */
final class MissingPages {
  private final SessionLayer[] layers;
  private final PageTransport tier;
  private final WriteBehind writeBehind;

  MissingPages(SessionLayer[] layers, PageTransport tier, WriteBehind writeBehind) {
    this.layers = layers;
    this.tier = tier;
    this.writeBehind = writeBehind;
  }

  /**
   * Missing pages of a layer, and of the others that are not busy: what is gone is mostly gone of
   * all, and an engine computes all layers' rows of a token together.
   *
   * @return ranges of whole pages, by layer, then position
   * @throws io.kvtier.KvtierException UNAVAILABLE if the tiers do not tell
   */
  List<TokenRange> ranges(int asked) {
    List<TokenRange> ranges = new ArrayList<>();
    for (int layer = 0; layer < layers.length; layer++) {
      SessionLayer target = layers[layer];
      if (layer == asked) {
        target.enter();
      } else if (!target.tryEnter()) {
        continue;
      }
      List<PageKey> keys;
      try {
        keys = target.device.pageKeys();
      } finally {
        target.leave();
      }
      addRanges(layer, keys, ranges);
    }
    return ranges;
  }

  private void addRanges(int layer, List<PageKey> keys, List<TokenRange> ranges) {
    BitSet there = tier.contains(keys);
    for (int page = there.nextClearBit(0); page < keys.size(); page = there.nextClearBit(page)) {
      int from = page;
      while (page < keys.size()
          && !there.get(page)
          && writeBehind.pending(keys.get(page)) == null) {
        page++;
      }
      if (page > from) {
        ranges.add(
            TokenRange.newBuilder()
                .setLayer(layer)
                .setPosition(from * TOKENS)
                .setTokens((page - from) * TOKENS)
                .build());
      } else {
        page++;
      }
    }
  }
}
