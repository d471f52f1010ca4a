package io.kvtier.gpuworker.cpu;

import static io.kvtier.page.PageLayout.TOKENS;

import io.kvtier.gpuworker.core.Candidates;

/**
 * What a pass writes between its halves, for one KV head: the sketch's weights of every paged
 * token. The largest thing a pass needs (4 bytes a token and q head), so it is lent for one query
 * at a time by {@link Workshop}. One pass at a time; its tasks write different ranges.
 */
final class PassMemory {
  /** {@code [group][stride]}: e^(sketch score - the range's reference). */
  float[] weights = new float[0];

  /** Tokens from one query's weights to the next's. */
  int stride;

  /**
   * {@code [pages][group]}: a page's weights added up, those of tokens attended otherwise left out.
   */
  float[] pageTotals = new float[0];

  /** {@code [ranges][group]}: what a range's weights are relative to. */
  float[] references = new float[0];

  /** {@code [ranges][group]}: a range's weights added up. */
  double[] rangeTotals = new double[0];

  /** {@code [ranges][group]}: what turns a weight into a share of the attention, over the group. */
  float[] shares = new float[0];

  /** {@code [ranges]}. */
  Candidates[] candidates = new Candidates[0];

  /** Grows to so many pages. */
  void reserve(int pages, int ranges, int group) {
    if (stride < pages * TOKENS || weights.length < group * stride) {
      int room = Math.max(pages, Math.min(2 * stride / TOKENS, pages + pages / 4));
      stride = room * TOKENS;
      weights = new float[group * stride];
      pageTotals = new float[group * room];
    }
    if (candidates.length < ranges) {
      references = new float[ranges * group];
      rangeTotals = new double[ranges * group];
      shares = new float[ranges * group];
      candidates = new Candidates[ranges];
      for (int range = 0; range < ranges; range++) {
        candidates[range] = new Candidates();
      }
    }
  }
}
