package io.kvtier.gpuworker.session;

import org.jspecify.annotations.Nullable;

/**
 * What one layer of one step asks for. The arrays are read, and a tree's keys and values kept until
 * it is resolved; nobody may write to them.
 *
 * @param position of the first token, those accepted of a waiting tree counted in
 * @param queries {@code [tokens][qHeads][headDim]}
 * @param keys {@code [tokens][kvHeads][headDim]}
 * @param values same shape
 * @param hint predicted queries of the next layer in the shape of queries; empty: none
 * @param parents one a token, as the contract says; empty: each token follows the one before
 * @param accepted nodes of the layer's waiting tree that are appended first; null: none waits
 */
public record TokenStep(
    int layer,
    int position,
    int tokens,
    float[] queries,
    float[] keys,
    float[] values,
    float[] hint,
    int[] parents,
    int @Nullable [] accepted) {
  boolean isTree() {
    return parents.length > 0;
  }

  int acceptedCount() {
    return accepted == null ? 0 : accepted.length;
  }
}
