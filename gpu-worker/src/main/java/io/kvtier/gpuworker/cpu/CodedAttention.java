package io.kvtier.gpuworker.cpu;

import static io.kvtier.page.PageLayout.TOKENS;

import io.kvtier.attention.GroupQuery;
import io.kvtier.attention.HeadOffsets;
import io.kvtier.attention.Kernels;
import io.kvtier.attention.Partial;
import io.kvtier.attention.RestOffsets;
import io.kvtier.gpuworker.cpu.Workshop.Tools;
import io.kvtier.gpuworker.device.LayerShape;
import io.kvtier.page.PageLayout;
import io.kvtier.page.Residence;
import java.util.Arrays;
import java.util.Objects;
import org.jspecify.annotations.Nullable;

/**
 * Attention of one KV head's group to coded tokens: all of a dense head's, all of a streamed
 * head's, the chosen ones of a sketched head ({@link ChosenAttention}), and the estimate of those
 * that were not chosen. What comes from elsewhere is added up in the order of positions, whenever
 * it comes. A method that takes a range may run at the same time as others of other ranges; the
 * rest run alone.
 */
final class CodedAttention {
  private static final int RANGE = HeadPass.RANGE;

  /** Pages of a dense head whose means are added at once. */
  static final int TOUCHED = 8;

  /** Pages whose means are added at once in an estimate, memory being asked for as many more. */
  private static final int MEANS_AHEAD = 32;

  /** Bytes of a cache line. */
  private static final int LINE = 64;

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

  /** Where what four bits leave lies from the address of codes; null: that is not stored. */
  private final @Nullable RestOffsets restAt;

  /** The same in codes that hold the whole head. */
  private final @Nullable RestOffsets restAlone;

  private final GroupSum fetchedSum;

  /** What only sketched heads use. */
  final ChosenAttention chosen;

  private GroupSum[] rangeSums = new GroupSum[0];

  /** Pages of a streamed head that have been attended to. */
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
    boolean finer = Residence.finer(layout) != 0;
    this.restAt = finer ? RestOffsets.inSlot(layout, residence.codes(layout)) : null;
    this.restAlone = finer ? RestOffsets.inSlot(layout, Residence.STREAMED.codes(layout)) : null;
    this.fetchedSum = new GroupSum(group, shape.headDim());
    this.chosen = new ChosenAttention(shape, pages, residence, kernels, query, fetchedSum);
  }

  void begin() {
    fetchedSum.clear();
    attended = 0;
  }

  int attended() {
    return attended;
  }

  private int end(int range) {
    return Math.min(layer.pages(), (range + 1) * RANGE);
  }

  /**
   * Adds a page's values by its scores. Its mean waits among the tools, after those of {@code
   * waiting} pages before it: to add several at once takes half as long.
   *
   * @return pages whose means wait
   */
  private int addPage(
      HeadOffsets at,
      @Nullable RestOffsets rest,
      long sketch,
      long codes,
      GroupSum sum,
      Tools tools,
      int waiting) {
    int before = waiting;
    kernels.maxima(tools.scores, group, tools.totals);
    long heavy = rest == null ? 0 : Heaviest.ofPage(tools.scores, group, tools.totals, sum.max);
    if (rest != null && heavy != 0) {
      for (long left = heavy; left != 0; left &= left - 1) {
        int token = Long.numberOfTrailingZeros(left);
        rest.addScores(kernels, query, codes, token, tools.scratch, tools.scores, token, TOKENS);
      }
      kernels.maxima(tools.scores, group, tools.totals);
    }
    if (sum.below(tools.totals)) {
      addWaitingMeans(at, before, sum, tools);
      before = 0;
      for (int g = 0; g < group; g++) {
        sum.raise(g, tools.totals[g]);
      }
    }
    kernels.weighPage(tools.scores, group, sum.max, tools.weights, tools.totals);
    for (int g = 0; g < group; g++) {
      sum.total[g] += tools.totals[g];
      tools.pageWeights[before * group + g] = tools.totals[g];
    }
    kernels.addValues(at, codes, group, tools.weights, tools.scratch, sum.rotated);
    for (long left = heavy; rest != null && left != 0; left &= left - 1) {
      int token = Long.numberOfTrailingZeros(left);
      rest.addValues(
          kernels, group, codes, token, tools.weights, token, tools.scratch, sum.rotated);
    }
    tools.pageAddresses[before] = sketch;
    return before + 1;
  }

  private void addWaitingMeans(HeadOffsets at, int waiting, GroupSum sum, Tools tools) {
    kernels.addMeans(
        tools.pageAddresses,
        0,
        waiting,
        at.valueMean(),
        shape.headDim(),
        group,
        tools.pageWeights,
        0,
        sum.means);
  }

  // ---- whole pages

  /** Leaves the first pages of a streamed head to others. */
  void skipPages(int count) {
    if (attended > 0) {
      throw new IllegalStateException(attended + " pages were attended to already");
    }
    attended = count;
  }

  /** Attends to the next page of a streamed head. */
  void attendNextPage(int page, long codes, Tools tools) {
    if (page != attended) {
      throw new IllegalStateException("page " + page + " was given; " + attended + " comes next");
    }
    attended++;
    long tokens = tokensOf(page);
    if (tokens != 0) {
      attendPage(alone, restAlone, codes, codes, tokens, fetchedSum, tools);
    }
  }

  /** All of a page's tokens, as a bit set, its sinks left out. */
  private long tokensOf(int page) {
    int sinks = page == 0 ? layer.exact().sinkCount() : 0;
    return sinks == TOKENS ? 0 : -1L << sinks;
  }

  private void attendPage(
      HeadOffsets at,
      @Nullable RestOffsets rest,
      long sketch,
      long codes,
      long tokens,
      GroupSum sum,
      Tools tools) {
    kernels.exactScores(query, at, sketch, codes, tokens, tools.scratch, tools.scores);
    addWaitingMeans(at, addPage(at, rest, sketch, codes, sum, tools, 0), sum, tools);
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
    int end = end(range);
    int waiting = 0;
    for (int page = range * RANGE; page < end; page++) {
      long tokens = tokensOf(page);
      long sketch = pages.sketchAddress(page);
      long codes = pages.codesAddress(page);
      // Values come while keys are scored, the next page's keys while values are added.
      kernels.prefetch(codes + at.valueCodes(), shape.codesBytes(residence) - at.valueCodes());
      if (tokens != 0) {
        kernels.exactScores(query, at, sketch, codes, tokens, tools.scratch, tools.scores);
      }
      if (page + 1 < end) {
        prefetchKeys(page + 1);
      }
      if (tokens != 0) {
        waiting = addPage(at, restAt, sketch, codes, sum, tools, waiting);
      }
      if (waiting == TOUCHED) {
        addWaitingMeans(at, waiting, sum, tools);
        waiting = 0;
      }
    }
    addWaitingMeans(at, waiting, sum, tools);
  }

  private void prefetchKeys(int page) {
    kernels.prefetch(pages.sketchAddress(page), shape.layout().lengthOf(residence.sketch()));
    kernels.prefetch(pages.codesAddress(page) + at.fine(), at.valueCodes() - at.fine());
  }

  /** Adds up what of a range was not chosen: each page's mass times its mean value. */
  void estimateRest(int range, PassMemory memory, Tools tools) {
    GroupSum sum = Objects.requireNonNull(rangeSums[range]);
    sum.clear();
    int first = range * RANGE;
    int end = end(range);
    long[] sketches = pages.sketchAddresses();
    int lines = (Short.BYTES * shape.headDim() + LINE - 1) / LINE;
    int asked = first;
    for (int page = first; page < end; page += MEANS_AHEAD) {
      int to = Math.min(end, page + MEANS_AHEAD);
      int ahead = Math.min(end, to + MEANS_AHEAD);
      kernels.prefetchEach(pages.sketchesToAsk(), asked, ahead, at.valueMean(), lines, LINE);
      asked = ahead;
      kernels.addMeans(
          sketches,
          page,
          to,
          at.valueMean(),
          shape.headDim(),
          group,
          memory.pageTotals,
          page * group,
          sum.means);
    }
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
    if (ranges > 0) {
      // Ranges are merged before they are rotated back, which takes longer than merging does.
      GroupSum all = rangeSums[0];
      for (int range = 1; range < ranges; range++) {
        all.add(rangeSums[range], g);
      }
      all.mergeInto(partial, query, tools.scratch, g, tools.output);
    }
  }
}
