package io.kvtier.attention;

import io.kvtier.codec.Vectors;

/**
 * The inner loops of attention over rot4 pages and exact rows, for one KV head and the q heads that
 * share it: each key and value is decoded once for its whole group. Two implementations: plain
 * loops, which are the specification, and the vector unit's, held to them by parity tests.
 * Stateless; the scratch is the caller's. Addresses are absolute and off-heap. No call allocates.
 *
 * <p>Scores are natural: q·k / √headDim, the query having been divided already.
 */
public interface Kernels {
  /** The kernels for this machine. */
  static Kernels best() {
    return Vectors.enabled() ? VectorKernels.INSTANCE : ScalarKernels.INSTANCE;
  }

  /** The specification. */
  static Kernels scalar() {
    return ScalarKernels.INSTANCE;
  }

  /** One line for people: which kernels these are. */
  String description();

  /** Fills one query's tables from its rotated values, step and bias. */
  void fillTables(GroupQuery query, int g);

  /**
   * Scores a page's 64 tokens by one or two bit planes: the quantized tables' sums times the step,
   * plus bias, times the token's scale, plus the score of the page's mean key.
   *
   * @param sketch address that {@code at}'s sketch offsets count from
   * @param planes 1 or 2
   * @param scores receives {@code [group][64]} from 0 on
   */
  void sketchScores(
      GroupQuery query, HeadOffsets at, long sketch, int planes, Scratch scratch, float[] scores);

  /**
   * Scores a page's tokens by two planes, as {@link #sketchScores}, and turns the scores into
   * weights at once: {@code e^(score - reference)}, an estimate, to 5e-4; from e^-87 to e^87.
   *
   * @param references {@code [group]} from {@code referencesAt} on
   * @param weights receives {@code [group][stride]}, the page's 64 from {@code weightsAt} on
   * @param totals receives {@code [group]} from {@code pageAt} on: the page's sum of weights
   */
  void sketchWeights(
      GroupQuery query,
      HeadOffsets at,
      long sketch,
      int planes,
      Scratch scratch,
      float[] references,
      int referencesAt,
      float[] weights,
      int weightsAt,
      int stride,
      float[] totals,
      int pageAt);

  /**
   * Scores tokens of a page by all four bits.
   *
   * @param codes address that {@code at}'s code offsets count from
   * @param tokens bit t: token t is wanted
   * @param scores receives {@code [group][64]} from 0 on; -∞ for tokens that are not wanted
   */
  void exactScores(
      GroupQuery query,
      HeadOffsets at,
      long sketch,
      long codes,
      long tokens,
      Scratch scratch,
      float[] scores);

  /**
   * Reads one word of every cache line, many lines at once, and leaves them in the cache: scoring
   * reads too slowly for memory's latency to be hidden.
   */
  void touch(long address, int length, Scratch scratch);

  /** The largest of {@code count} scores; -∞ for none. */
  float max(float[] scores, int at, int count);

  /**
   * {@code weights[i] = e^(scores[i] - reference)}, to two units in the last place; 0 below e^-87.
   * The arrays may be the same.
   *
   * @param count a multiple of 16
   * @return the sum of the weights
   */
  float weigh(float[] scores, int at, float reference, float[] weights, int weightsAt, int count);

  /**
   * Adds the values of a page's tokens to rotated accumulators: {@code Σ weight x scale x level}.
   *
   * @param weights {@code [group][64]}; 0: the token is left out
   * @param sums {@code [group][width]} with {@link Scratch#width}; the order of the last chunk is
   *     {@link Scratch#order}'s
   */
  void addValues(
      HeadOffsets at, long codes, int group, float[] weights, Scratch scratch, float[] sums);

  /** As {@link #addValues}, one token's row. */
  void addValueRow(
      HeadOffsets at,
      long codes,
      int token,
      int group,
      float[] weights,
      Scratch scratch,
      float[] sums);

  /**
   * Adds {@code weight x mean} of pages' mean values, which are not rotated.
   *
   * @param pages addresses that {@code meanAt} counts from; {@code from} to {@code to} are added
   * @param weights {@code [pages][group]}: page {@code from}'s at {@code weightsAt}
   * @param sums {@code [group][headDim]}
   */
  void addMeans(
      long[] pages,
      int from,
      int to,
      int meanAt,
      int headDim,
      int group,
      float[] weights,
      int weightsAt,
      float[] sums);

  /**
   * Scores exact rows.
   *
   * @param rows address of the head's element 0 of row 0
   * @param stride bytes from row to row
   * @param elementBytes 2 (bf16) or 4 (fp32, little-endian)
   * @param scores receives {@code [group][scoresStride]}, {@code count} of each from {@code
   *     scoresAt} on
   */
  void rowScores(
      GroupQuery query,
      long rows,
      int stride,
      int elementBytes,
      int count,
      float[] scores,
      int scoresAt,
      int scoresStride);

  /**
   * Adds exact rows of values: {@code Σ weight x row}; parameters as for {@link #rowScores}.
   *
   * @param sums {@code [group][headDim]}
   */
  void addRows(
      long rows,
      int stride,
      int elementBytes,
      int count,
      int group,
      int headDim,
      float[] weights,
      int weightsAt,
      int weightsStride,
      float[] sums);

  /**
   * Pools the masses of a page's tokens over the group, {@code Σ_g weight x share}, and notes those
   * not below a floor.
   *
   * @param weights {@code [group][stride]}, the page's 64 from {@code at} on
   * @param shares {@code [group]} from {@code sharesAt} on
   * @param floor above 0
   * @param position of the page's first token
   * @param positions receives the positions, rising, from {@code count} on; has room for 80
   * @param masses receives the masses likewise
   * @return the count with those noted
   */
  int candidates(
      float[] weights,
      int at,
      int stride,
      int group,
      float[] shares,
      int sharesAt,
      float floor,
      int position,
      int[] positions,
      float[] masses,
      int count);
}
