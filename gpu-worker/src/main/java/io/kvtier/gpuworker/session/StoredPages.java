package io.kvtier.gpuworker.session;

import static io.kvtier.page.PageLayout.TOKENS;

import io.kvtier.client.PageTransport;
import io.kvtier.gpuworker.device.LayerShape;
import io.kvtier.page.PageKey;
import io.kvtier.v1.Ancestor;
import io.kvtier.v1.PlanMode;
import io.kvtier.v1.Session;
import java.util.ArrayList;
import java.util.BitSet;
import java.util.List;
import java.util.UUID;
import org.jspecify.annotations.Nullable;

/**
 * What the tiers have of a session that is to be read back. Its pages are known by their names: the
 * first by the prompt's prefix hashes, others by the session that made them, which is one that it
 * was forked from or itself. One thread.
 */
final class StoredPages {
  /** Keys asked for at once: a layer's longest run is mostly found with few questions. */
  private static final int ASKED_MAX = 1024;

  private final Session info;
  private final UUID id;
  private final Prefix prefix;
  private final LayerShape shape;
  private final SinkPage sinkPage;

  StoredPages(Session info, Prefix prefix, LayerShape shape) {
    this.info = info;
    this.id = Sessions.uuidOf(info.getSessionId());
    this.prefix = prefix;
    this.shape = shape;
    this.sinkPage = new SinkPage(shape);
  }

  /** Names of the first pages of a session's first layer, by which its tier is found. */
  static List<PageKey> firstNames(Session info, Prefix prefix) {
    Sessions.requireBounds(info);
    return new StoredPages(info, prefix, Sessions.shapeOf(info)).names(0, ASKED_MAX);
  }

  /**
   * Names of a layer's first pages, as far as they are known.
   *
   * @param pagesMax how many are wanted at most
   */
  List<PageKey> names(int layer, int pagesMax) {
    List<PageKey> names = new ArrayList<>();
    int pages = pagesMost();
    for (int page = 0; page < Math.min(pages, pagesMax); page++) {
      PageKey name = name(layer, page);
      if (name == null) {
        break;
      }
      names.add(name);
    }
    return names;
  }

  private int pagesMost() {
    return info.getMode() == PlanMode.PLAN_MODE_TAILORKV ? 0 : shape.pages(info.getTokensMax());
  }

  /** The name of a page; null: it is of the prompt, and what the tiers have of it is not known. */
  private @Nullable PageKey name(int layer, int page) {
    UUID maker = makerOf(page);
    // A fork's own tokens need not be those of the prompt that its ancestor was opened with.
    boolean mayBeOfPrompt = info.getAncestorsCount() == 0 || !maker.equals(id);
    if (mayBeOfPrompt && page < prefix.chain().pages()) {
      return page < prefix.storedPages() ? prefix.pageKey(layer, page, shape) : null;
    }
    return PageKey.ofSession(maker, page, shape.fingerprint(), layer, shape.layout());
  }

  /** The session under whose id a page is stored. */
  private UUID makerOf(int page) {
    for (Ancestor ancestor : info.getAncestorsList()) {
      if (Integer.toUnsignedLong(ancestor.getTokens()) >= (page + 1L) * TOKENS) {
        return Sessions.uuidOf(ancestor.getSessionId());
      }
    }
    return id;
  }

  private PageKey sinkKey(int layer) {
    return prefix.storedPages() > 0
        ? prefix.sinkKey(layer, shape)
        : PageKey.ofSession(makerOf(0), 0, shape.fingerprint(), layer, sinkPage.layout());
  }

  /**
   * The longest runs that are stored. A session with a plan decodes, and all its layers are alike:
   * it comes back with as many tokens in each. One in its prefill may be sent layer by layer.
   *
   * @return one entry a layer
   * @throws io.kvtier.KvtierException UNAVAILABLE if the tiers do not tell
   */
  List<LayerPages> longest(PageTransport tier) {
    List<LayerPages> found = new ArrayList<>();
    int least = Integer.MAX_VALUE;
    for (int layer = 0; layer < info.getGeometry().getLayers(); layer++) {
      int atMost = info.hasPlan() ? least : Integer.MAX_VALUE;
      LayerPages stored = new LayerPages(run(tier, layer, atMost), sinkKey(layer));
      found.add(stored);
      least = Math.min(least, stored.keys().size());
    }
    if (info.hasPlan()) {
      int common = least;
      found.replaceAll(
          stored -> new LayerPages(stored.keys().subList(0, common), stored.sinkKey()));
    }
    return found;
  }

  private List<PageKey> run(PageTransport tier, int layer, int atMost) {
    List<PageKey> names = names(layer, atMost);
    if (names.isEmpty() || !tier.contains(List.of(sinkKey(layer))).get(0)) {
      return List.of();
    }
    int run = 0;
    while (run < names.size()) {
      List<PageKey> asked = names.subList(run, Math.min(names.size(), run + ASKED_MAX));
      BitSet stored = tier.contains(asked);
      int more = stored.nextClearBit(0);
      run += more;
      if (more < asked.size()) {
        break;
      }
    }
    return names.subList(0, run);
  }
}
