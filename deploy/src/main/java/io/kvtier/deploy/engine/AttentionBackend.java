package io.kvtier.deploy.engine;

/** Where a decoder's attention runs. One instance serves one sequence and is used by one thread. */
public interface AttentionBackend {

  /**
   * Appends keys and values of {@code tokens} new tokens of one layer, then lets each query attend
   * to every token up to its own. Layers are called in order from 0, once each a step. The arrays
   * are exactly as long as the shapes say, belong to the caller and are valid only during the call.
   *
   * @param layer the layer, from 0
   * @param position the first new token's position, which is the number of tokens the layer holds
   * @param tokens new tokens, 1 to 64
   * @param queries {@code [tokens][qHeads][headDim]}, fp32 row-major, rotated, not scaled by
   *     1/sqrt(headDim)
   * @param keys {@code [tokens][kvHeads][headDim]}, rotated
   * @param values {@code [tokens][kvHeads][headDim]}
   * @param hint predicted queries of layer + 1 in the shape of {@code queries}, or an empty array
   *     where there is none: in the last layer, or where {@link #wantsHints} says no
   * @param output {@code [tokens][qHeads][headDim]}, overwritten
   */
  void attend(
      int layer,
      int position,
      int tokens,
      float[] queries,
      float[] keys,
      float[] values,
      float[] hint,
      float[] output);

  /** Whether hints are worth computing: one norm and one query projection more for each layer. */
  default boolean wantsHints() {
    return false;
  }
}
