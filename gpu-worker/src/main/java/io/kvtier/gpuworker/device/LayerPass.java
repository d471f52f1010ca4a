package io.kvtier.gpuworker.device;

/**
 * Attends one query of every q head to a layer, in two halves, so that what is missing can be
 * fetched between them, piece by piece: {@link #choose} scans the sketch and chooses the dominant
 * tokens; {@link #attendNeeded} takes them up as their codes come; {@link #finish} merges the exact
 * rows, the dense heads, the chosen tokens and the estimated rest. Holds the scratch; one thread.
 */
public interface LayerPass {
  /**
   * First half.
   *
   * @param query {@code [qHeads][headDim]} from {@code queryAt} on
   * @param newKeys {@code [newTokens][kvHeads][headDim]}: tokens of this step that are not in the
   *     layer yet, up to the query's own
   * @param newValues same shape
   */
  void choose(float[] query, int queryAt, float[] newKeys, float[] newValues, int newTokens);

  /** (page, head) pairs whose codes the second half needs. */
  int neededCount();

  /** Page index of a needed pair. */
  int neededPage(int index);

  /** KV head of a needed pair. */
  int neededHead(int index);

  /** Sections of a needed pair, as a section set. */
  int neededSections(int index);

  /** Tokens chosen for a KV head; all paged ones of a streamed head. */
  int chosenCount(int kvHead);

  /** Position of a chosen token; rising with the index. */
  int chosenPosition(int kvHead, int index);

  /** Estimated share of the attention on a chosen token, pooled over the group. */
  float chosenMass(int kvHead, int index);

  /** Bytes that the query moved to the device beside the needed pairs. */
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
   * Second half, in any number of calls, over which each needed pair comes once, in any order:
   * attends to the pairs' chosen tokens.
   *
   * @param pairs indices of needed pairs, {@code count} of them
   * @param codes their codes, held by the caller during the call
   */
  void attendNeeded(int[] pairs, DeviceSlot[] codes, int count);

  /**
   * Ends the second half: attends dense heads, estimates what was not chosen, and merges all parts.
   *
   * @param output receives {@code [qHeads][headDim]} from {@code outputAt} on
   * @param lse receives {@code [qHeads]} from {@code lseAt} on: natural log-sum-exp of all scores
   */
  void finish(float[] output, int outputAt, float[] lse, int lseAt);

  /**
   * Lets go of the scratch memory of a pass that is not finished; what was chosen can still be
   * read. {@link #finish} does so by itself.
   */
  void release();
}
