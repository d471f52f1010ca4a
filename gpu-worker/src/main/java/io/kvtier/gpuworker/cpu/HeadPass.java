package io.kvtier.gpuworker.cpu;

import static io.kvtier.page.PageLayout.TOKENS;

import io.kvtier.attention.GroupQuery;
import io.kvtier.attention.HeadOffsets;
import io.kvtier.attention.Kernels;
import io.kvtier.attention.Partial;
import io.kvtier.gpuworker.core.Candidates;
import io.kvtier.gpuworker.core.HeadPolicy;
import io.kvtier.gpuworker.core.TokenChooser;
import io.kvtier.gpuworker.cpu.Workshop.Tools;
import io.kvtier.gpuworker.device.LayerShape;
import java.util.Arrays;
import java.util.Objects;

/**
 * One KV head of a pass. Pages are worked on in ranges of {@link #RANGE} pages, whatever the number
 * of threads, and ranges are merged in their order: the result does not depend on who did what. A
 * method that takes a range may run at the same time as others of other ranges; the rest run alone.
 */
final class HeadPass {
  /** Pages of a range: long enough to be worth a hand-over, short enough to share out. */
  static final int RANGE = 256;

  /** Weights beyond this are near fp32's end: their reference is raised. */
  private static final float TOTAL_MAX = 1e30f;

  private final CpuLayer layer;
  private final LayerShape shape;
  private final Kernels kernels;
  private final int head;
  private final int group;
  private final HeadPages pages;
  private final HeadOffsets at;

  /** Where sections lie in codes that stand alone; fetched codes of some residences do. */
  private final HeadOffsets alone;

  private final HeadPolicy policy;
  private final int planes;
  private final GroupQuery query;
  private final Partial[] partials;
  private final TokenChooser chooser = new TokenChooser();
  private final GroupSum chosenSum;
  private GroupSum[] rangeSums = new GroupSum[0];
  private float[] exactScores = new float[0];
  private final float[] exactSum;
  private int[] chosen = new int[0];
  private float[] chosenMasses = new float[0];
  private int chosenCount;
  private int candidateCount;

  /** {@code [group]}: variance of a sketch score's error, for a token of scale 1. */
  private final float[] errorVariance;

  HeadPass(CpuLayer layer, int head, HeadPolicy policy, Kernels kernels) {
    this.layer = layer;
    this.shape = layer.shape();
    this.kernels = kernels;
    this.head = head;
    this.group = shape.group();
    this.pages = layer.head(head);
    this.at = HeadPages.offsets(shape.layout(), policy.residence());
    this.alone = HeadPages.standingAlone(shape.layout());
    this.policy = policy;
    this.planes = policy.residence().planes();
    this.errorVariance = new float[group];
    this.query = new GroupQuery(group, shape.headDim());
    this.partials = new Partial[group];
    Arrays.setAll(partials, g -> new Partial(shape.headDim()));
    this.chosenSum = new GroupSum(group, shape.headDim());
    this.exactSum = new float[group * shape.headDim()];
  }

  boolean dense() {
    return policy.dense();
  }

  boolean streamed() {
    return policy.streamed();
  }

  boolean sketched() {
    return policy.sketched() && layer.pages() > 0;
  }

  HeadPolicy policy() {
    return policy;
  }

  /** Pages of a range end here. */
  private int end(int range) {
    return Math.min(layer.pages(), (range + 1) * RANGE);
  }

  // ---- exact rows

  /** Takes the query and attends to the exact rows. */
  void begin(float[] queries, int queryAt, NewTokens newTokens, PassMemory memory) {
    query.load(queries, queryAt + head * group * shape.headDim(), sketched(), kernels);
    chosenCount = 0;
    candidateCount = 0;
    chosenSum.clear();
    for (Partial partial : partials) {
      partial.clear();
    }
    attendExact(newTokens);
    if (sketched()) {
      for (int g = 0; g < group; g++) {
        errorVariance[g] = SketchError.variance(planes) * query.squareNorm(g);
      }
      memory.reserve(layer.pages(), CpuPass.ranges(layer.pages()), group);
    }
  }

  /** Scores sinks, window and new tokens into one row a query, then adds their values up. */
  private void attendExact(NewTokens newTokens) {
    ExactRows exact = layer.exact();
    int headDim = shape.headDim();
    int sinks = layer.pages() > 0 ? exact.sinkCount() : 0;
    int rows = sinks + exact.windowCount() + newTokens.count();
    int stride = (rows + 15) & -16;
    if (exactScores.length < group * stride) {
      exactScores = new float[2 * group * stride];
    }
    Arrays.fill(exactScores, 0, group * stride, Float.NEGATIVE_INFINITY);
    int bytes = shape.exactBytes();
    int rowBytes = exact.rowBytes();
    int at = sinks;
    kernels.rowScores(query, exact.sinkKeys(head), rowBytes, bytes, sinks, exactScores, 0, stride);
    kernels.rowScores(
        query,
        exact.windowKeys(head),
        rowBytes,
        bytes,
        exact.windowCount(),
        exactScores,
        at,
        stride);
    at += exact.windowCount();
    kernels.rowScores(
        query,
        newTokens.keys(head),
        newTokens.rowBytes(),
        Float.BYTES,
        newTokens.count(),
        exactScores,
        at,
        stride);
    float[] lse = weighExact(rows, stride);
    Arrays.fill(exactSum, 0);
    float[] w = exactScores;
    kernels.addRows(
        exact.sinkValues(head), rowBytes, bytes, sinks, group, headDim, w, 0, stride, exactSum);
    kernels.addRows(
        exact.windowValues(head),
        rowBytes,
        bytes,
        exact.windowCount(),
        group,
        headDim,
        w,
        sinks,
        stride,
        exactSum);
    kernels.addRows(
        newTokens.values(head),
        newTokens.rowBytes(),
        Float.BYTES,
        newTokens.count(),
        group,
        headDim,
        w,
        at,
        stride,
        exactSum);
    for (int g = 0; g < group; g++) {
      partials[g].merge(exactSum, g * headDim, 1 / lse[group + g], lse[g]);
    }
  }

  /** Turns scores into weights. Returns {@code [group]} log-sum-exps, then as many totals. */
  private float[] weighExact(int rows, int stride) {
    float[] lse = new float[2 * group];
    for (int g = 0; g < group; g++) {
      float max = kernels.max(exactScores, g * stride, rows);
      if (max == Float.NEGATIVE_INFINITY) {
        lse[g] = max;
        lse[group + g] = 1;
        continue;
      }
      float total = kernels.weigh(exactScores, g * stride, max, exactScores, g * stride, stride);
      lse[g] = max + (float) Math.log(total);
      lse[group + g] = total;
    }
    return lse;
  }

  // ---- sparse heads: scan and choice

  /** Weighs a range's tokens by the sketch, relative to the exact rows' log-sum-exp. */
  void scan(int range, PassMemory memory, Tools tools) {
    int first = range * RANGE;
    for (int g = 0; g < group; g++) {
      memory.references[range * group + g] = reference(g, first, tools);
    }
    for (int page = first; page < end(range); page++) {
      scanPage(range, page, memory, tools);
      for (int g = 0; g < group; g++) {
        if (memory.pageTotals[page * group + g] > TOTAL_MAX) {
          raise(range, g, page, memory, tools);
        }
      }
    }
    if (range == 0) {
      leaveSinksOut(memory);
    }
    for (int g = 0; g < group; g++) {
      double total = 0;
      for (int page = first; page < end(range); page++) {
        total += memory.pageTotals[page * group + g];
      }
      memory.rangeTotals[range * group + g] = total;
    }
  }

  /**
   * The error of a sketch score is spread about 0, so that e^score is too small on average by
   * e^(variance / 2): the reference makes up for it, page by page.
   */
  private void scanPage(int range, int page, PassMemory memory, Tools tools) {
    float[] references = tools.pageWeights;
    for (int g = 0; g < group; g++) {
      references[g] =
          memory.references[range * group + g]
              - SketchError.raise(errorVariance[g], pages.squareScale(page));
    }
    kernels.sketchWeights(
        query,
        at,
        pages.sketchAddress(page),
        planes,
        tools.scratch,
        references,
        0,
        memory.weights,
        page * group * TOKENS,
        TOKENS,
        memory.pageTotals,
        page * group);
  }

  private float reference(int g, int page, Tools tools) {
    float exact = partials[g].lse();
    return exact == Float.NEGATIVE_INFINITY ? largestScore(g, page, tools) : exact;
  }

  private float largestScore(int g, int page, Tools tools) {
    kernels.sketchScores(query, at, pages.sketchAddress(page), planes, tools.scratch, tools.scores);
    return kernels.max(tools.scores, g * TOKENS, TOKENS)
        + SketchError.raise(errorVariance[g], pages.squareScale(page));
  }

  /**
   * A page's weights are too large for what they are relative to: takes the page's largest score.
   */
  private void raise(int range, int g, int page, PassMemory memory, Tools tools) {
    int slot = range * group + g;
    float higher = Math.max(memory.references[slot], largestScore(g, page, tools));
    float shrink = (float) Math.exp(memory.references[slot] - higher);
    memory.references[slot] = higher;
    for (int before = range * RANGE; before < page; before++) {
      memory.pageTotals[before * group + g] *= shrink;
      int from = (before * group + g) * TOKENS;
      for (int t = from; t < from + TOKENS; t++) {
        memory.weights[t] *= shrink;
      }
    }
    scanPage(range, page, memory, tools);
  }

  /** Sinks are attended exactly; their codes in page 0 must not count again. */
  private void leaveSinksOut(PassMemory memory) {
    for (int g = 0; g < group; g++) {
      int from = g * TOKENS;
      Arrays.fill(memory.weights, from, from + layer.exact().sinkCount(), 0);
      float total = 0;
      for (int t = from; t < from + TOKENS; t++) {
        total += memory.weights[t];
      }
      memory.pageTotals[g] = total;
    }
  }

  /** Finds what a weight of each range is worth. */
  void share(PassMemory memory) {
    int ranges = CpuPass.ranges(layer.pages());
    for (int g = 0; g < group; g++) {
      float max = partials[g].lse();
      for (int range = 0; range < ranges; range++) {
        max = Math.max(max, memory.references[range * group + g]);
      }
      double total = Math.exp(partials[g].lse() - max);
      for (int range = 0; range < ranges; range++) {
        int slot = range * group + g;
        total += memory.rangeTotals[slot] * Math.exp(memory.references[slot] - max);
      }
      for (int range = 0; range < ranges; range++) {
        int slot = range * group + g;
        memory.shares[slot] = (float) (Math.exp(memory.references[slot] - max) / (total * group));
      }
    }
  }

  /** Collects a range's tokens of most mass; pages that cannot hold any are skipped. */
  void collect(int range, PassMemory memory) {
    Candidates candidates = memory.candidates[range];
    int first = range * RANGE;
    candidates.clear(policy.tokensMax(), (end(range) - first) * TOKENS);
    for (int page = first; page < end(range); page++) {
      float most = 0;
      for (int g = 0; g < group; g++) {
        most += memory.pageTotals[page * group + g] * memory.shares[range * group + g];
      }
      candidates.raise(Float.intBitsToFloat(memory.floorBits.get()));
      if (most >= candidates.floor) {
        if (candidates.makeRoom()) {
          int bits = Float.floatToRawIntBits(candidates.floorOfAll);
          memory.floorBits.accumulateAndGet(bits, Math::max);
        }
        candidates.count =
            kernels.candidates(
                memory.weights,
                page * group * TOKENS,
                TOKENS,
                group,
                memory.shares,
                range * group,
                candidates.floor,
                page * TOKENS,
                candidates.positions,
                candidates.masses,
                candidates.count);
      }
    }
  }

  /** Chooses among all ranges' candidates. */
  void choose(PassMemory memory) {
    int ranges = CpuPass.ranges(layer.pages());
    double mass = 0;
    for (int slot = 0; slot < ranges * group; slot++) {
      mass += memory.rangeTotals[slot] * memory.shares[slot];
    }
    Candidates all = memory.candidates[0];
    for (int range = 1; range < ranges; range++) {
      all.addAll(memory.candidates[range]);
    }
    if (chosen.length < all.count) {
      chosen = new int[all.count];
      chosenMasses = new float[all.count];
    }
    candidateCount = all.count;
    chosenCount = chooser.choose(policy, all, mass, chosen);
    for (int i = 0; i < chosenCount; i++) {
      chosenMasses[i] = all.masses[chosen[i]];
      chosen[i] = all.positions[chosen[i]];
    }
  }

  /** Tokens that the choice was made among; all of a streamed head. */
  int candidateCount() {
    return streamed() ? chosenCount() : candidateCount;
  }

  int chosenCount() {
    return streamed() ? firstChosen(layer.pages()) : chosenCount;
  }

  int chosenPosition(int index) {
    return streamed() ? layer.exact().sinkCount() + index : chosen[index];
  }

  /** A streamed head has no estimate. */
  float chosenMass(int index) {
    return streamed() ? 0 : chosenMasses[index];
  }

  /** Index of a page's first token among those of a streamed head: all but the sinks. */
  int firstChosen(int page) {
    return Math.max(0, page * TOKENS - layer.exact().sinkCount());
  }

  // ---- second half

  /**
   * Attends to chosen tokens of one page.
   *
   * @param from index of the page's first chosen token
   * @param to end of the page's chosen tokens
   * @param codes address of the head's codes of the page
   */
  void attendChosen(int from, int to, long codes, PassMemory memory, Tools tools) {
    int page = chosenPosition(from) / TOKENS;
    long tokens = 0;
    for (int i = from; i < to; i++) {
      tokens |= 1L << chosenPosition(i) % TOKENS;
    }
    if (policy.residence().codesStandAlone()) {
      attendPage(alone, codes, codes, tokens, chosenSum, tools);
    } else {
      attendPage(at, pages.sketchAddress(page), codes, tokens, chosenSum, tools);
    }
    if (streamed()) {
      return;
    }
    // What is attended is no part of the estimated rest.
    for (int g = 0; g < group; g++) {
      float estimated = 0;
      for (int i = from; i < to; i++) {
        estimated += memory.weights[(page * group + g) * TOKENS + chosen[i] % TOKENS];
      }
      int slot = page * group + g;
      memory.pageTotals[slot] = Math.max(0, memory.pageTotals[slot] - estimated);
    }
  }

  private void attendPage(
      HeadOffsets at, long sketch, long codes, long tokens, GroupSum sum, Tools tools) {
    boolean few = Long.bitCount(tokens) <= ROWS_MAX;
    if (few) {
      touchEarly(at, sketch, codes, tokens, tools);
    }
    kernels.exactScores(query, at, sketch, codes, tokens, tools.scratch, tools.scores);
    // Scores beyond the tokens are -∞ and need no weight where rows are added one by one.
    int from = few ? Long.numberOfTrailingZeros(tokens) & -16 : 0;
    int to = few ? TOKENS - (Long.numberOfLeadingZeros(tokens) & -16) : TOKENS;
    float[] weights = tools.weights;
    for (int g = 0; g < group; g++) {
      int first = g * TOKENS + from;
      sum.raise(g, kernels.max(tools.scores, first, to - from));
      float total = kernels.weigh(tools.scores, first, sum.max[g], weights, first, to - from);
      sum.total[g] += total;
      tools.pageWeights[g] = total;
    }
    if (few) {
      for (long left = tokens; left != 0; left &= left - 1) {
        int token = Long.numberOfTrailingZeros(left);
        kernels.addValueRow(at, codes, token, group, weights, tools.scratch, sum.rotated);
      }
    } else {
      kernels.addValues(at, codes, group, weights, tools.scratch, sum.rotated);
    }
    tools.pageAddress[0] = sketch;
    kernels.addMeans(
        tools.pageAddress,
        0,
        1,
        at.valueMean(),
        shape.headDim(),
        group,
        tools.pageWeights,
        0,
        sum.means);
  }

  /**
   * Asks for what will be needed after the keys, so that memory's latency is waited for once: the
   * scales and means of the page, the values of its tokens.
   */
  private void touchEarly(HeadOffsets at, long sketch, long codes, long tokens, Tools tools) {
    int headDim = shape.headDim();
    kernels.touch(sketch + at.keyScales(), 2 * (TOKENS + 2 * headDim), tools.scratch);
    kernels.touch(codes + at.valueScales(), 2 * TOKENS, tools.scratch);
    for (long left = tokens; left != 0; left &= left - 1) {
      long row = codes + at.valueCodes() + Long.numberOfTrailingZeros(left) * (headDim / 2L);
      kernels.touch(row, headDim / 2, tools.scratch);
    }
  }

  /** So many rows are added up one by one sooner than the whole page. */
  private static final int ROWS_MAX = 12;

  /** Makes room for the sums of so many ranges. */
  void reserveSums(int ranges) {
    int have = rangeSums.length;
    if (have < ranges) {
      rangeSums = Arrays.copyOf(rangeSums, ranges);
      for (int range = have; range < ranges; range++) {
        rangeSums[range] = new GroupSum(group, shape.headDim());
      }
    }
  }

  /** Attends to every token of a range, its sinks left out. */
  void attendDense(int range, Tools tools) {
    GroupSum sum = Objects.requireNonNull(rangeSums[range]);
    sum.clear();
    for (int page = range * RANGE; page < end(range); page++) {
      long tokens = page == 0 ? -1L << layer.exact().sinkCount() : -1L;
      long codes = pages.codesAddress(page);
      int values = at.valueCodes();
      kernels.touch(codes + values, shape.codesBytes(policy.residence()) - values, tools.scratch);
      if (tokens != 0) {
        attendPage(at, pages.sketchAddress(page), codes, tokens, sum, tools);
      }
    }
  }

  /** Adds up what of a range was not chosen: each page's mass times its mean value. */
  void estimateRest(int range, PassMemory memory) {
    GroupSum sum = Objects.requireNonNull(rangeSums[range]);
    sum.clear();
    int first = range * RANGE;
    kernels.addMeans(
        pages.sketchAddresses(),
        first,
        end(range),
        at.valueMean(),
        shape.headDim(),
        group,
        memory.pageTotals,
        first * group,
        sum.means);
    for (int g = 0; g < group; g++) {
      double total = 0;
      for (int page = first; page < end(range); page++) {
        total += memory.pageTotals[page * group + g];
      }
      sum.max[g] = memory.references[range * group + g];
      sum.total[g] = (float) total;
    }
  }

  /** Merges all parts. */
  void merge(float[] output, int outputAt, float[] lse, int lseAt, Tools tools) {
    int headDim = shape.headDim();
    int ranges = CpuPass.ranges(layer.pages());
    for (int g = 0; g < group; g++) {
      chosenSum.mergeInto(partials[g], query, tools.scratch, g, tools.output);
      for (int range = 0; range < ranges && !streamed(); range++) {
        rangeSums[range].mergeInto(partials[g], query, tools.scratch, g, tools.output);
      }
      int qHead = head * group + g;
      System.arraycopy(partials[g].output(), 0, output, outputAt + qHead * headDim, headDim);
      lse[lseAt + qHead] = partials[g].lse();
    }
  }
}
