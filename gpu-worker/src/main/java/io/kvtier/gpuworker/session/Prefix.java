package io.kvtier.gpuworker.session;

import static io.kvtier.KvtierException.requireInRange;

import com.google.common.primitives.Ints;
import io.kvtier.KvtierException;
import io.kvtier.gpuworker.device.LayerShape;
import io.kvtier.page.PageKey;
import io.kvtier.page.PageLayout;
import io.kvtier.page.PrefixChain;
import io.kvtier.v1.PlanMode;
import io.kvtier.v1.Session;
import io.kvtier.v1.SharedPrefix;
import java.util.ArrayList;
import java.util.List;

/**
 * The part of a session's prompt whose pages are shared with other sessions, and which of them are
 * stored already. Immutable.
 */
public final class Prefix {
  /** The session shares nothing. */
  public static final Prefix NONE = new Prefix(PrefixChain.EMPTY, 0, 0, 0, new int[0], new int[0]);

  private final PrefixChain chain;
  private final int promptTokens;
  private final int layers;
  private final int storedPages;

  /** {@code [storedPages][layers]}. */
  private final int[] checksums;

  /** {@code [layers]}; empty if no pages are stored. */
  private final int[] sinkChecksums;

  private Prefix(
      PrefixChain chain,
      int promptTokens,
      int layers,
      int storedPages,
      int[] checksums,
      int[] sinkChecksums) {
    this.chain = chain;
    this.promptTokens = promptTokens;
    this.layers = layers;
    this.storedPages = storedPages;
    this.checksums = checksums;
    this.sinkChecksums = sinkChecksums;
  }

  /**
   * Checks what the coordinator says.
   *
   * @throws KvtierException INVALID with name, value and bound
   */
  public static Prefix of(SharedPrefix prefix, Session session) {
    if (prefix.getHashes().isEmpty()) {
      return NONE;
    }
    if (session.getMode() == PlanMode.PLAN_MODE_TAILORKV) {
      throw KvtierException.invalid(
          "prefix is set in TailorKV mode, which pages nothing out; leave token_ids away");
    }
    PrefixChain chain = PrefixChain.of(prefix.getHashes());
    int tokens =
        (int)
            requireInRange(
                "prompt_tokens",
                Integer.toUnsignedLong(prefix.getPromptTokens()),
                (long) chain.pages() * PageLayout.TOKENS,
                session.getTokensMax());
    int layers = session.getGeometry().getLayers();
    int stored = prefix.getChecksumsCount() / layers;
    if (prefix.getChecksumsCount() % layers != 0 || stored > chain.pages()) {
      throw KvtierException.invalid(
          "checksums has %d entries; it must have layers, %d, for each of at most %d pages",
          prefix.getChecksumsCount(), layers, chain.pages());
    }
    if (prefix.getSinkChecksumsCount() != (stored > 0 ? layers : 0)) {
      throw KvtierException.invalid(
          "sink_checksums has %d entries; it must have %d",
          prefix.getSinkChecksumsCount(), stored > 0 ? layers : 0);
    }
    return new Prefix(
        chain,
        tokens,
        layers,
        stored,
        Ints.toArray(prefix.getChecksumsList()),
        Ints.toArray(prefix.getSinkChecksumsList()));
  }

  PrefixChain chain() {
    return chain;
  }

  /** What a tier is chosen by: sessions whose prompts begin alike are to meet there. */
  String placement(String sessionId) {
    return chain.pages() == 0 ? sessionId : Long.toHexString(chain.high(0));
  }

  /**
   * Stored pages that a session takes over: no more than it would have paged out, had it prefilled
   * its prompt itself. So its last tokens are exact, and its outputs are the same.
   */
  int reusedPages(LayerShape shape) {
    return Math.min(storedPages, shape.pages(promptTokens));
  }

  int storedPages() {
    return storedPages;
  }

  /** The stored pages that a layer begins with; there must be some. */
  LayerPages reused(int layer, LayerShape shape) {
    int count = reusedPages(shape);
    List<PageKey> keys = new ArrayList<>(count);
    for (int page = 0; page < count; page++) {
      keys.add(pageKey(layer, page, shape));
    }
    return new LayerPages(keys, sinkKey(layer, shape));
  }

  /** Key of one of a layer's stored pages. */
  PageKey pageKey(int layer, int page, LayerShape shape) {
    int checksum = checksums[page * layers + layer];
    return PageKey.ofPrefix(chain, page, checksum, shape.fingerprint(), layer, shape.layout());
  }

  /** Key of a layer's stored sink rows; some page must be stored. */
  PageKey sinkKey(int layer, LayerShape shape) {
    PageLayout layout = new SinkPage(shape).layout();
    return PageKey.ofPrefix(chain, 0, sinkChecksums[layer], shape.fingerprint(), layer, layout);
  }

  /** The prefix when nothing of it is stored. */
  Prefix withoutStored() {
    return new Prefix(chain, promptTokens, layers, 0, new int[0], new int[0]);
  }
}
