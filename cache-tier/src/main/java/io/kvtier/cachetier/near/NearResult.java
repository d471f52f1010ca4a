package io.kvtier.cachetier.near;

import io.kvtier.cachetier.Read.MissReason;
import java.util.List;

/**
 * What was computed near the pages.
 *
 * @param values scores, {@code [kvHeads][group][pages served][64]}, or outputs, {@code
 *     [kvHeads][group][headDim]}
 * @param lse {@code [kvHeads][group]}; empty for scores
 * @param tokens scored or attended, of all pages
 * @param misses by rising index; the other pages are served, or wanted for no token
 */
public record NearResult(float[] values, float[] lse, long tokens, List<PageMiss> misses) {
  /** A page that was not served. */
  public record PageMiss(int index, MissReason reason) {}
}
