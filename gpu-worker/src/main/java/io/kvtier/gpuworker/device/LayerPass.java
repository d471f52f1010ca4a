package io.kvtier.gpuworker.device;

/**
 * Attends one query of every q head to a layer, in steps, so that what is missing can be fetched
 * meanwhile: {@link #choose} scans the sketch and chooses the dominant tokens, or {@link #begin}
 * and {@link #choosePart} do so for some heads after the others; {@link #attendRows} and {@link
 * #attendPages} take up what is not on the device as it comes; {@link #attendResident} attends to
 * dense heads and estimates what was not chosen; {@link #finish} merges all. Whatever comes when,
 * each head's sums are made in the order of positions, so that the output is the same to the bit.
 * Holds the scratch; one thread.
 */
public interface LayerPass extends CodesTaker {
  /**
   * Scans and chooses.
   *
   * @param query {@code [qHeads][headDim]} from {@code queryAt} on
   * @param newKeys {@code [newTokens][kvHeads][headDim]}: tokens of this step that are not in the
   *     layer yet, up to the query's own
   * @param newValues same shape
   */
  void choose(float[] query, int queryAt, float[] newKeys, float[] newValues, int newTokens);

  /**
   * The same, but for the choice: {@link #choosePart} makes it. A device that chooses for all heads
   * at once does so here.
   */
  default void begin(
      float[] query, int queryAt, float[] newKeys, float[] newValues, int newTokens) {
    choose(query, queryAt, newKeys, newValues, newTokens);
  }

  /**
   * Counts the first pages of a streamed head as attended to: their partial is made elsewhere, and
   * the caller merges it with what {@link #finish} gives. The others are given as ever. Before any
   * of the head's pages.
   */
  void skipPages(int kvHead, int pages);

  /** Estimated share of the attention on a chosen token, pooled over the group. */
  float chosenMass(int kvHead, int index);

  /** Bytes that the query moved to the device beside rows and pages. */
  default long bytesMoved() {
    return 0;
  }

  /** Tokens chosen, over all KV heads. */
  int chosenTotal();

  /** Tokens that the choice was made among, over all KV heads. */
  default int candidateTotal() {
    return chosenTotal();
  }

  /**
   * Ends the query: does what has not been done of {@link #attendResident}, and merges all parts.
   *
   * @param output receives {@code [qHeads][headDim]} from {@code outputAt} on
   * @param lse receives {@code [qHeads]} from {@code lseAt} on: natural log-sum-exp of all scores
   * @throws IllegalStateException if rows or pages that are needed were not given
   */
  void finish(float[] output, int outputAt, float[] lse, int lseAt);

  /**
   * Lets go of the scratch memory of a pass that is not finished; what was chosen can still be
   * read. {@link #finish} does so by itself.
   */
  void release();
}
