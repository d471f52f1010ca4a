package io.kvtier.cachetier.near;

import static io.kvtier.KvtierException.invalid;
import static io.kvtier.KvtierException.requireInRange;

import io.kvtier.attention.GroupQuery;
import io.kvtier.cachetier.SectionSelection;
import io.kvtier.page.PageKey;
import io.kvtier.page.PageLayout;
import io.kvtier.page.Section;
import java.util.List;

/**
 * What is to be computed near the pages. Every limit that does not need the pages is checked here,
 * before anything of the answer's size is allocated.
 *
 * @param keys of the pages, in the order in which they are attended
 * @param kvHeads rising
 * @param group q heads of each KV head
 * @param queries {@code [kvHeads][group][headDim]}, to be divided by √headDim; read only
 * @param planes 1, 2 or 4 for scores; 0: attend
 * @param tokens empty: every token; else a bit set a key
 */
public record NearRequest(
    List<PageKey> keys,
    int[] kvHeads,
    int group,
    int headDim,
    float[] queries,
    int planes,
    long[] tokens) {
  /** Most pages in one request. */
  public static final int PAGES_MAX = 1024;

  /** Most queries, q heads times KV heads, in one request. */
  public static final int QUERIES_MAX = 512;

  /** Longest answer with scores, in bytes. */
  public static final int SCORES_BYTES_MAX = 16 << 20;

  private static final int SKETCH =
      Section.set(Section.K_SIGN, Section.K_COARSE, Section.K_SCALES, Section.K_MEAN);
  private static final int KEYS = SKETCH | Section.K_FINE.bit();
  private static final int ALL =
      KEYS | Section.set(Section.V_CODES, Section.V_SCALES, Section.V_MEAN);

  public NearRequest {
    requireInRange("number of keys", keys.size(), 1, PAGES_MAX);
    requireShape(kvHeads.length, group, headDim);
    for (int i = 0; i < kvHeads.length; i++) {
      requireInRange("kv_heads[" + i + "]", kvHeads[i], 0, PageLayout.KV_HEADS_MAX - 1);
      if (i > 0 && kvHeads[i] <= kvHeads[i - 1]) {
        throw invalid("kv_heads[%d] is %d after %d; they must rise", i, kvHeads[i], kvHeads[i - 1]);
      }
    }
    requireInRange(
        "elements of queries",
        queries.length,
        (long) kvHeads.length * group * headDim,
        (long) kvHeads.length * group * headDim);
    if (planes != 0 && planes != 1 && planes != 2 && planes != 4) {
      throw invalid("planes is %d; it must be 1, 2 or 4", planes);
    }
    if (tokens.length != 0 && tokens.length != keys.size()) {
      throw invalid(
          "tokens has %d bit sets; it must have none, or one for each of %d keys",
          tokens.length, keys.size());
    }
    for (int i = 0; i < keys.size(); i++) {
      if (keys.get(i).layer() != keys.getFirst().layer()) {
        throw invalid(
            "keys[%d] is of layer %d, keys[0] of layer %d; all must be of one layer",
            i, keys.get(i).layer(), keys.getFirst().layer());
      }
    }
    long scoresBytes =
        planes == 0
            ? 0
            : (long) kvHeads.length * group * keys.size() * PageLayout.TOKENS * Float.BYTES;
    requireInRange("bytes of scores", scoresBytes, 0, SCORES_BYTES_MAX);
  }

  /**
   * Checks the shape of queries, before they are read.
   *
   * @throws io.kvtier.KvtierException INVALID with name, value and bound
   */
  public static void requireShape(int kvHeads, int group, int headDim) {
    requireInRange("number of kv_heads", kvHeads, 1, PageLayout.KV_HEADS_MAX);
    requireInRange("group", Integer.toUnsignedLong(group), 1, GroupQuery.GROUP_MAX);
    requireInRange("queries (kv_heads x group)", (long) kvHeads * group, 1, QUERIES_MAX);
    PageLayout.requireHeadDim(headDim);
  }

  /** The sections that are read of each page. */
  SectionSelection selection() {
    long low = 0;
    long high = 0;
    for (int head : kvHeads) {
      low |= head < Long.SIZE ? 1L << head : 0;
      high |= head < Long.SIZE ? 0 : 1L << head;
    }
    return new SectionSelection(low, high, planes == 0 ? ALL : planes == 4 ? KEYS : SKETCH);
  }

  /**
   * The wanted tokens of a page that has so many.
   *
   * @throws io.kvtier.KvtierException INVALID if a token is wanted that it does not have
   */
  long wanted(int page, int pageTokens) {
    long all = pageTokens == PageLayout.TOKENS ? -1L : (1L << pageTokens) - 1;
    if (tokens.length == 0) {
      return all;
    }
    if ((tokens[page] & ~all) != 0) {
      throw invalid(
          "tokens[%d] has token %d; the page has tokens 0..%d",
          page, Long.SIZE - 1 - Long.numberOfLeadingZeros(tokens[page]), pageTokens - 1);
    }
    return tokens[page];
  }

  /** Whether nothing of a page is wanted. */
  boolean skips(int page) {
    return tokens.length != 0 && tokens[page] == 0;
  }
}
