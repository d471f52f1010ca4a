package io.kvtier.gpuworker.cpu;

import static io.kvtier.page.PageLayout.TOKENS;

import io.kvtier.attention.GroupQuery;
import io.kvtier.attention.HeadOffsets;
import io.kvtier.attention.Kernels;
import io.kvtier.attention.Partial;
import io.kvtier.gpuworker.cpu.Workshop.Tools;
import io.kvtier.gpuworker.device.LayerShape;
import io.kvtier.page.PageLayout;
import io.kvtier.page.Residence;
import io.kvtier.page.Section;
import java.util.Arrays;
import java.util.Objects;
import org.agrona.UnsafeApi;

/**
 * Attention of one KV head's group to coded tokens: all of a dense head's, all of a streamed
 * head's, the chosen ones of a sketched head, and the estimate of those that were not chosen. What
 * comes from elsewhere is added up in the order of positions, whenever it comes. A method that
 * takes a range may run at the same time as others of other ranges; the rest run alone.
 */
final class CodedAttention {
  private static final int RANGE = HeadPass.RANGE;

  /** So many rows are added up one by one sooner than the whole page. */
  private static final int ROWS_MAX = 12;

  /** What a one-plane sketch has of a whole head, as its scratch needs it. */
  private static final Section[] PER_PAGE = {Section.K_SCALES, Section.K_MEAN, Section.V_MEAN};

  private final CpuLayer layer;
  private final LayerShape shape;
  private final Kernels kernels;
  private final Residence residence;
  private final HeadPages pages;
  private final GroupQuery query;
  private final int group;

  /** Where sections lie from the addresses of sketch and codes. */
  private final HeadOffsets at;

  /** Where sections lie in codes that hold the whole head. */
  private final HeadOffsets alone;

  private final RowScatter scatter;
  private final GroupSum fetchedSum;
  private GroupSum[] rangeSums = new GroupSum[0];

  /** Where values lie in a row. */
  private final HeadOffsets inRow;

  /** Addresses of the chosen tokens' rows; 0: not given. */
  private long[] rows = new long[0];

  /** {@code [chosen][group]}. */
  private float[] scores = new float[0];

  /** At a page's first chosen token: whether the page's have been scored. */
  private boolean[] scored = new boolean[0];

  /** Chosen tokens, or pages of a streamed head, that have been attended to. */
  private int attended;

  CodedAttention(CpuLayer layer, int head, Residence residence, Kernels kernels, GroupQuery query) {
    this.layer = layer;
    this.shape = layer.shape();
    this.kernels = kernels;
    this.residence = residence;
    this.pages = layer.head(head);
    this.query = query;
    this.group = shape.group();
    PageLayout layout = shape.layout();
    this.at = HeadPages.offsets(layout, residence);
    this.alone = HeadPages.standingAlone(layout);
    boolean onePlane = residence == Residence.ONE_PLANE;
    this.scatter =
        new RowScatter(
            layout,
            onePlane ? residence : Residence.TWO_PLANES,
            (onePlane ? Residence.STREAMED : Residence.TWO_PLANES).codes());
    this.inRow = scatter.inRow(layout.headDim());
    this.fetchedSum = new GroupSum(group, shape.headDim());
  }

  void begin() {
    fetchedSum.clear();
    attended = 0;
  }

  /** Forgets all rows and makes room for those of so many chosen tokens. */
  void expectRows(int count) {
    if (rows.length < count) {
      int room = count + count / 2;
      rows = new long[room];
      scores = new float[room * group];
      scored = new boolean[room];
    }
    Arrays.fill(rows, 0, count, 0);
    Arrays.fill(scored, 0, count, false);
  }

  void giveRow(int index, long address) {
    rows[index] = address;
  }

  void forgetRows() {
    Arrays.fill(rows, 0);
  }

  int attended() {
    return attended;
  }

  private int end(int range) {
    return Math.min(layer.pages(), (range + 1) * RANGE);
  }

  // ---- chosen tokens

  /**
   * Attends to chosen tokens, page by page, up to the first page whose rows are not all there.
   * Those of later pages that are there are scored already, which takes the longer time and can be
   * done in any order.
   */
  void attendRows(int[] chosen, int count, Tools tools) {
    boolean inOrder = true;
    int from = attended;
    while (from < count) {
      int page = chosen[from] / TOKENS;
      boolean there = true;
      int to = from;
      for (; to < count && chosen[to] / TOKENS == page; to++) {
        there &= rows[to] != 0;
      }
      if (there && !scored[from]) {
        score(chosen, from, to, tools);
        scored[from] = true;
      }
      inOrder &= there;
      if (inOrder) {
        addRows(chosen, from, to, tools);
        attended = to;
      }
      from = to;
    }
  }

  /** Scores the chosen tokens {@code from} to {@code to}, all of one page. */
  private void score(int[] chosen, int from, int to, Tools tools) {
    int page = chosen[from] / TOKENS;
    long sketch = pages.sketchAddress(page);
    long codes = tools.codesAddress;
    touchEarly(sketch, from, to, tools);
    long tokens = 0;
    for (int i = from; i < to; i++) {
      int token = chosen[i] % TOKENS;
      scatter.putKey(rows[i], token, codes);
      tokens |= 1L << token;
    }
    if (residence == Residence.ONE_PLANE) {
      // The kernels want the second plane behind the first.
      copyOnePlane(sketch, codes);
      kernels.exactScores(query, alone, codes, codes, tokens, tools.scratch, tools.scores);
    } else {
      kernels.exactScores(query, at, sketch, codes, tokens, tools.scratch, tools.scores);
    }
    for (int i = from; i < to; i++) {
      for (int g = 0; g < group; g++) {
        scores[i * group + g] = tools.scores[g * TOKENS + chosen[i] % TOKENS];
      }
    }
  }

  private void copyOnePlane(long sketch, long codes) {
    PageLayout layout = shape.layout();
    UnsafeApi.copyMemory(sketch + at.planes(), codes + alone.planes(), at.planeLength());
    for (Section section : PER_PAGE) {
      UnsafeApi.copyMemory(
          sketch + layout.offsetIn(residence.sketch(), section),
          codes + layout.offsetIn(Residence.STREAMED.codes(), section),
          layout.length(section));
    }
  }

  /**
   * Asks for what will be needed, so that memory's latency is waited for once: the scales and means
   * of the page, the rows of its tokens.
   */
  private void touchEarly(long sketch, int from, int to, Tools tools) {
    kernels.touch(sketch + at.keyScales(), 2 * (TOKENS + 2 * shape.headDim()), tools.scratch);
    for (int i = from; i < to; i++) {
      kernels.touch(rows[i], scatter.rowBytes(), tools.scratch);
    }
  }

  /** Weighs tokens of one page that have been scored, and adds up their values. */
  private void addRows(int[] chosen, int from, int to, Tools tools) {
    boolean few = to - from <= ROWS_MAX;
    // Few tokens lie side by side, more of them where they lie in the page.
    int room = few ? (to - from + 15) & -16 : TOKENS;
    for (int g = 0; g < group; g++) {
      Arrays.fill(tools.scores, g * TOKENS, g * TOKENS + room, Float.NEGATIVE_INFINITY);
      for (int i = from; i < to; i++) {
        int lane = few ? i - from : chosen[i] % TOKENS;
        tools.scores[g * TOKENS + lane] = scores[i * group + g];
      }
    }
    weigh(room, fetchedSum, tools);
    if (few) {
      for (int i = from; i < to; i++) {
        for (int g = 0; g < group; g++) {
          tools.scores[g * TOKENS] = tools.weights[g * TOKENS + i - from];
        }
        kernels.addValueRow(
            inRow, rows[i], 0, group, tools.scores, tools.scratch, fetchedSum.rotated);
      }
    } else {
      scatter.clearValueScales(tools.codesAddress);
      for (int i = from; i < to; i++) {
        scatter.putValue(rows[i], chosen[i] % TOKENS, tools.codesAddress);
      }
      HeadOffsets inScratch = residence == Residence.ONE_PLANE ? alone : at;
      kernels.addValues(
          inScratch, tools.codesAddress, group, tools.weights, tools.scratch, fetchedSum.rotated);
    }
    addPageMean(pages.sketchAddress(chosen[from] / TOKENS), at, fetchedSum, tools);
  }

  /** Turns scores of one page into weights; 0 where a score is -∞. */
  private void weigh(int count, GroupSum sum, Tools tools) {
    for (int g = 0; g < group; g++) {
      int first = g * TOKENS;
      sum.raise(g, kernels.max(tools.scores, first, count));
      float total = kernels.weigh(tools.scores, first, sum.max[g], tools.weights, first, count);
      sum.total[g] += total;
      tools.pageWeights[g] = total;
    }
  }

  private void addPageMean(long sketch, HeadOffsets at, GroupSum sum, Tools tools) {
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

  // ---- whole pages

  /** Attends to the next page of a streamed head. */
  void attendNextPage(int page, long codes, Tools tools) {
    if (page != attended) {
      throw new IllegalStateException("page " + page + " was given; " + attended + " comes next");
    }
    attended++;
    long tokens = tokensOf(page);
    if (tokens != 0) {
      attendPage(alone, codes, codes, tokens, fetchedSum, tools);
    }
  }

  /** All of a page's tokens, as a bit set, its sinks left out. */
  private long tokensOf(int page) {
    int sinks = page == 0 ? layer.exact().sinkCount() : 0;
    return sinks == TOKENS ? 0 : -1L << sinks;
  }

  private void attendPage(
      HeadOffsets at, long sketch, long codes, long tokens, GroupSum sum, Tools tools) {
    kernels.exactScores(query, at, sketch, codes, tokens, tools.scratch, tools.scores);
    weigh(TOKENS, sum, tools);
    kernels.addValues(at, codes, group, tools.weights, tools.scratch, sum.rotated);
    addPageMean(sketch, at, sum, tools);
  }

  // ---- what is resident

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

  /** Attends to every token of a range of a dense head, its sinks left out. */
  void attendDense(int range, Tools tools) {
    GroupSum sum = Objects.requireNonNull(rangeSums[range]);
    sum.clear();
    for (int page = range * RANGE; page < end(range); page++) {
      long tokens = tokensOf(page);
      long codes = pages.codesAddress(page);
      int values = at.valueCodes();
      kernels.touch(codes + values, shape.codesBytes(residence) - values, tools.scratch);
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

  /** Merges all sums of one query of the group into its partial. */
  void mergeInto(Partial partial, int g, Tools tools) {
    fetchedSum.mergeInto(partial, query, tools.scratch, g, tools.output);
    int ranges = residence == Residence.STREAMED ? 0 : CpuPass.ranges(layer.pages());
    for (int range = 0; range < ranges; range++) {
      rangeSums[range].mergeInto(partial, query, tools.scratch, g, tools.output);
    }
  }
}
