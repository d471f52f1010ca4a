package io.kvtier.attention;

import io.kvtier.codec.Vectors;
import java.lang.foreign.MemorySegment;

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
   * Scores the tokens of a run of pages, as {@link #sketchScores}, and turns the scores into
   * weights at once: {@code e^(score - reference)}, an estimate, to 5e-4 and then to the nearest of
   * bf16; from e^-87 to e^87. Memory is asked ahead for the pages of the run.
   *
   * @param sketches addresses that {@code at}'s sketch offsets count from; {@code from} to {@code
   *     to} are scored
   * @param references {@code [to - from][group]} from {@code referencesAt} on
   * @param weights address of what receives {@code [to - from][group][64]} bf16, best at a multiple
   *     of 64
   * @param totals receives {@code [to - from][group]} from {@code totalsAt} on: a page's sum of
   *     weights
   * @param meanScores receives {@code [to - from][group]} from {@code totalsAt} on: scores of a
   *     page's mean key
   */
  void sketchWeights(
      GroupQuery query,
      HeadOffsets at,
      long[] sketches,
      int from,
      int to,
      int planes,
      Scratch scratch,
      float[] references,
      int referencesAt,
      long weights,
      float[] totals,
      float[] meanScores,
      int totalsAt);

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

  /**
   * Asks memory for the lines of {@code length} bytes that will be read soon, without waiting; they
   * need not exist.
   */
  void prefetch(long address, int length);

  /**
   * As {@link #prefetch}, lines that lie anywhere.
   *
   * @param addresses longs that {@code at} counts from, made once of an array; lines behind {@code
   *     from} to {@code to} are asked for
   * @param lines behind each address, 1 or more, {@code step} bytes apart
   */
  void prefetchEach(MemorySegment addresses, int from, int to, int at, int lines, int step);

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
   * The largest scores of a page with each query.
   *
   * @param scores {@code [group][64]}
   * @param maxima receives {@code [group]}
   */
  void maxima(float[] scores, int group, float[] maxima);

  /**
   * As {@link #weigh}, a page with each query.
   *
   * @param scores {@code [group][64]}
   * @param references {@code [group]}
   * @param weights receives {@code [group][64]}
   * @param totals receives {@code [group]}: the sums of the weights
   */
  void weighPage(float[] scores, int group, float[] references, float[] weights, float[] totals);

  /**
   * Adds the values of a page's tokens to rotated accumulators: {@code Σ weight x scale x level}.
   *
   * @param weights {@code [group][64]}; 0: the token is left out
   * @param sums {@code [group][width]} with {@link Scratch#width}; the order of the last chunk is
   *     {@link Scratch#order}'s
   */
  void addValues(
      HeadOffsets at, long codes, int group, float[] weights, Scratch scratch, float[] sums);

  /**
   * Asks memory for rows {@code from} to {@code to}, as {@link #prefetch}.
   *
   * @param rows addresses of rows of {@code form}, as longs; 0: not given
   */
  void prefetchChosen(RowForm form, MemorySegment rows, int from, int to);

  /**
   * Scores chosen tokens {@code from} to {@code to}, at most 64, by their rows.
   *
   * @param rows addresses of rows of {@code form}, joined
   * @param positions of the tokens, by the same index
   * @param meanScores {@code [pages][group]}: the score of each page's mean key
   * @param scores receives {@code [group][stride]}, by the same index
   * @param valueScales receives the scales of the tokens' values, by the same index
   */
  void chosenScores(
      GroupQuery query,
      RowForm form,
      long[] rows,
      int[] positions,
      int from,
      int to,
      float[] meanScores,
      Scratch scratch,
      float[] scores,
      int stride,
      float[] valueScales);

  /**
   * Adds the values of chosen tokens {@code from} to {@code to} to rotated accumulators: {@code Σ
   * scaled x level}, token by token.
   *
   * @param rows addresses of rows of {@code form}
   * @param scaled {@code [group][64]}: weight x value scale, of token {@code from} at {@code
   *     scaledAt}
   * @param sums {@code [group][width]}, as for {@link #addValues}
   */
  void addChosen(
      RowForm form,
      long[] rows,
      int from,
      int to,
      int group,
      float[] scaled,
      int scaledAt,
      float[] sums);

  /**
   * Adds to one token's scores what four bits have left of its key.
   *
   * @param codes address of the token's row of K_REST
   * @param step the row's
   * @param scores query g's at {@code at + g x stride}
   */
  void addRestScores(
      GroupQuery query,
      long codes,
      float step,
      Scratch scratch,
      float[] scores,
      int at,
      int stride);

  /**
   * Adds what four bits have left of one token's value to rotated accumulators: {@code Σ weight x
   * step x rest}.
   *
   * @param codes address of the token's row of V_REST
   * @param step the row's
   * @param weights query g's at {@code at + 64 g}
   * @param sums {@code [group][width]}, as for {@link #addValues}
   */
  void addRest(
      int headDim,
      int group,
      long codes,
      float step,
      float[] weights,
      int at,
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
   * @param weights address of {@code [group][stride]} bf16, of which the page's 64 are the first
   * @param shares {@code [group]} from {@code sharesAt} on
   * @param floor above 0
   * @param position of the page's first token
   * @param positions receives the positions, rising, from {@code count} on; has room for 80
   * @param masses receives the masses likewise
   * @return the count with those noted
   */
  int candidates(
      long weights,
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
