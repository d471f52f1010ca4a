package io.kvtier.attention;

import static io.kvtier.page.PageLayout.TOKENS;

import java.util.Arrays;

/**
 * The q heads that share one KV head, attending to rot4 pages that come one by one. What comes out
 * depends on the kernels and on the order of the pages, and on nothing else: the same calls give
 * the same bits wherever the pages are. One thread; no call allocates.
 *
 * <p>The sums are a running softmax (Milakov and Gimelshein, Online normalizer calculation for
 * softmax, 2018): rotated residuals and page means apart, both in units of e^max.
 */
public final class PageGroupAttention {
  private final Kernels kernels;
  private final GroupQuery query;
  private final Scratch scratch;
  private final Partial partial;
  private final int group;
  private final int headDim;
  private final int width;

  /** {@code [group][64]}. */
  private final float[] scores;

  /** {@code [group][64]}. */
  private final float[] weights;

  /** {@code [group]}: the page's sum of weights. */
  private final float[] pageWeights;

  private final long[] page = new long[1];

  /** {@code [group][width]}: Σ weight x rotated residual. */
  private final float[] rotated;

  /** {@code [group][headDim]}: Σ weight x page mean. */
  private final float[] means;

  /** {@code [group]}: what the weights are relative to; -∞: nothing has been added. */
  private final float[] max;

  /** {@code [group]}: Σ weight. */
  private final float[] total;

  private final float[] output;

  /**
   * Attention of so many q heads of so many dimensions.
   *
   * @throws io.kvtier.KvtierException INVALID if either is out of its bounds
   */
  public PageGroupAttention(int group, int headDim, Kernels kernels) {
    this.kernels = kernels;
    this.query = new GroupQuery(group, headDim);
    this.scratch = new Scratch(group, headDim);
    this.partial = new Partial(headDim);
    this.group = group;
    this.headDim = headDim;
    this.width = Scratch.width(headDim);
    this.scores = new float[group * TOKENS];
    this.weights = new float[group * TOKENS];
    this.pageWeights = new float[group];
    this.rotated = new float[group * width];
    this.means = new float[group * headDim];
    this.max = new float[group];
    this.total = new float[group];
    this.output = new float[headDim];
  }

  /**
   * Takes the queries; nothing has been attended then.
   *
   * @param queries {@code [group][headDim]} from {@code at} on; read only
   * @param sketched whether {@link #score} will read one or two planes
   */
  public void begin(float[] queries, int at, boolean sketched) {
    query.load(queries, at, sketched, kernels);
    Arrays.fill(rotated, 0);
    Arrays.fill(means, 0);
    Arrays.fill(max, Float.NEGATIVE_INFINITY);
    Arrays.fill(total, 0);
  }

  /**
   * Scores a page's tokens.
   *
   * @param address of the page, off-heap
   * @param planes 1, 2, or 4: all bits
   * @param tokens bit t: token t is wanted
   * @param into receives {@code [group][stride]}, the page's 64 from {@code intoAt} on; -∞ for
   *     tokens that are not wanted
   */
  public void score(
      HeadOffsets at, long address, int planes, long tokens, float[] into, int intoAt, int stride) {
    if (planes == 4) {
      kernels.exactScores(query, at, address, address, tokens, scratch, scores);
    } else {
      kernels.sketchScores(query, at, address, planes, scratch, scores);
    }
    for (int g = 0; g < group; g++) {
      for (int t = 0; t < TOKENS; t++) {
        boolean wanted = (tokens >>> t & 1) != 0;
        into[intoAt + g * stride + t] = wanted ? scores[g * TOKENS + t] : Float.NEGATIVE_INFINITY;
      }
    }
  }

  /**
   * Attends to tokens of a page.
   *
   * @param address of the page, off-heap
   * @param tokens bit t: token t is attended
   */
  public void attend(HeadOffsets at, long address, long tokens) {
    if (tokens == 0) {
      return;
    }
    kernels.exactScores(query, at, address, address, tokens, scratch, scores);
    kernels.maxima(scores, group, pageWeights);
    for (int g = 0; g < group; g++) {
      raise(g, pageWeights[g]);
    }
    kernels.weighPage(scores, group, max, weights, pageWeights);
    for (int g = 0; g < group; g++) {
      total[g] += pageWeights[g];
    }
    kernels.addValues(at, address, group, weights, scratch, rotated);
    page[0] = address;
    kernels.addMeans(page, 0, 1, at.valueMean(), headDim, group, pageWeights, 0, means);
  }

  /** Makes room for scores up to {@code score}: what was added so far is scaled down. */
  private void raise(int g, float score) {
    if (score > max[g]) {
      if (total[g] > 0) {
        float shrink = (float) Math.exp(max[g] - score);
        total[g] *= shrink;
        scale(rotated, g * width, width, shrink);
        scale(means, g * headDim, headDim, shrink);
      }
      max[g] = score;
    }
  }

  private static void scale(float[] x, int at, int length, float factor) {
    for (int i = at; i < at + length; i++) {
      x[i] *= factor;
    }
  }

  /**
   * Gives the partial over all that was attended; {@link #begin} comes next.
   *
   * @param outputs receives {@code [group][headDim]} from {@code at} on; zeros for the empty set
   * @param lse receives {@code [group]} from {@code lseAt} on; -∞ for the empty set
   */
  public void finish(float[] outputs, int at, float[] lse, int lseAt) {
    for (int g = 0; g < group; g++) {
      partial.clear();
      if (total[g] > 0) {
        scratch.order(rotated, g * width);
        System.arraycopy(rotated, g * width, output, 0, headDim);
        query.rotateBack(output, 0);
        // The same bits as where a worker attends to the pages itself.
        double share = 1.0 / total[g];
        for (int i = 0; i < headDim; i++) {
          output[i] = (float) ((output[i] + means[g * headDim + i]) * share);
        }
        partial.merge(output, 0, 1, max[g] + (float) Math.log(total[g]));
      }
      System.arraycopy(partial.output(), 0, outputs, at + g * headDim, headDim);
      lse[lseAt + g] = partial.lse();
    }
  }
}
