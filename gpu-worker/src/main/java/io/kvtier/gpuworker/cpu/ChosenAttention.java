package io.kvtier.gpuworker.cpu;

import static io.kvtier.page.PageLayout.TOKENS;

import io.kvtier.attention.GroupQuery;
import io.kvtier.attention.HeadOffsets;
import io.kvtier.attention.Kernels;
import io.kvtier.attention.RestOffsets;
import io.kvtier.attention.RowForm;
import io.kvtier.gpuworker.cpu.Workshop.Tools;
import io.kvtier.gpuworker.device.LayerShape;
import io.kvtier.page.PageLayout;
import io.kvtier.page.Residence;
import java.lang.foreign.MemorySegment;
import java.util.Arrays;
import org.jspecify.annotations.Nullable;

/**
 * Attention of one KV head's group to its chosen tokens, by their rows, as these come. Scoring is
 * done in any order; weights and values are added up in the order of positions, and what the result
 * depends on (where the reference of the weights is raised, which of the lanes of a sum a token
 * goes to) follows from the tokens alone: the same bits, whatever comes when. One thread.
 */
final class ChosenAttention {
  /** Rows that are scored at once. */
  private static final int RUN = 32;

  /** Rows, and mean values, that memory is asked for ahead of use. */
  private static final int AHEAD = 32;

  /** Bytes of a cache line. */
  private static final int LINE = 64;

  /** Weights may be so much above their reference, e^16, before it is raised. */
  private static final float ABOVE_REFERENCE = 16;

  private final HeadPages pages;
  private final Kernels kernels;
  private final GroupQuery query;
  private final int group;
  private final int headDim;
  private final int planes;
  private final RowForm form;
  private final HeadOffsets at;

  /** Where what four bits leave of a token lies in its row; null: that is not stored. */
  private final @Nullable RestOffsets restAt;

  private final Heaviest heaviest = new Heaviest();
  private final GroupSum sum;

  /** The chosen tokens' positions. */
  private int[] chosen = new int[0];

  private int count;

  /** Addresses of the chosen tokens' rows; 0: not given. */
  private long[] rows = new long[0];

  /** {@link #rows}, for memory to be asked. */
  private MemorySegment rowsToAsk = MemorySegment.ofArray(rows);

  /** Addresses of what four bits leave of the chosen tokens; 0: not given. */
  private long[] rests = new long[0];

  /** Whether that is wanted. */
  private boolean[] refined = new boolean[0];

  /** {@code [group][stride]}. */
  private float[] scores = new float[0];

  private int stride;
  private float[] valueScales = new float[0];
  private boolean[] scored = new boolean[0];

  /** By chosen token: the number of its page among those that hold any. */
  private int[] units = new int[0];

  /** Addresses of those pages' sketches. */
  private long[] unitSketches = new long[0];

  /** {@link #unitSketches}, for memory to be asked. */
  private MemorySegment sketchesToAsk = MemorySegment.ofArray(unitSketches);

  /** {@code [units][group]}: weights of a page's chosen tokens, added up. */
  private float[] unitWeights = new float[0];

  /** {@code [group][64]}, of which the first are used: weights of a token whose rest is added. */
  private final float[] restWeights;

  /** {@code [group][64]}: weights added up, lane by lane. */
  private final float[] lanes;

  private int attended;
  private boolean complete;

  /**
   * For one head.
   *
   * @param sum receives what the tokens give
   */
  ChosenAttention(
      LayerShape shape,
      HeadPages pages,
      Residence residence,
      Kernels kernels,
      GroupQuery query,
      GroupSum sum) {
    PageLayout layout = shape.layout();
    this.pages = pages;
    this.kernels = kernels;
    this.query = query;
    this.group = shape.group();
    this.headDim = shape.headDim();
    this.planes = residence.planes();
    this.form = shape.rowForm();
    this.at = HeadPages.offsets(layout, residence);
    this.restAt = Residence.finer(layout) == 0 ? null : RestOffsets.inRow(layout);
    this.sum = sum;
    this.lanes = new float[group * TOKENS];
    this.restWeights = new float[restAt == null ? 0 : group * TOKENS];
  }

  /** Expects the rows of so many tokens; none has been given then. */
  void expect(int[] positions, int tokens) {
    chosen = positions;
    count = tokens;
    attended = 0;
    complete = false;
    if (rows.length < count) {
      int room = count + count / 2;
      rows = new long[room];
      rowsToAsk = MemorySegment.ofArray(rows);
      rests = new long[room];
      refined = new boolean[room];
      scores = new float[room * group];
      valueScales = new float[room];
      scored = new boolean[room];
      units = new int[room];
      unitSketches = new long[room];
      sketchesToAsk = MemorySegment.ofArray(unitSketches);
      unitWeights = new float[room * group];
    }
    stride = rows.length;
    Arrays.fill(rows, 0, count, 0);
    Arrays.fill(rests, 0, count, 0);
    Arrays.fill(refined, 0, count, false);
    Arrays.fill(scored, 0, count, false);
    Arrays.fill(lanes, 0);
    int unit = -1;
    for (int i = 0; i < count; i++) {
      if (i == 0 || chosen[i] / TOKENS != chosen[i - 1] / TOKENS) {
        unitSketches[++unit] = pages.sketchAddress(chosen[i] / TOKENS);
      }
      units[i] = unit;
    }
    Arrays.fill(unitWeights, 0, (unit + 1) * group, 0);
  }

  /**
   * Wants the heaviest of the expected tokens finer than by four bits, if they are stored so.
   *
   * @param masses estimates of theirs, by the same index
   */
  void refine(float[] masses) {
    if (restAt != null) {
      heaviest.mark(masses, count, refined);
    }
  }

  boolean refines(int index) {
    return refined[index];
  }

  void giveRow(int index, long address) {
    rows[index] = address;
  }

  void giveRest(int index, long address) {
    rests[index] = address;
  }

  void forgetRows() {
    Arrays.fill(rows, 0);
    Arrays.fill(rests, 0);
  }

  /** Whether all that is wanted of a token has been given. */
  private boolean isThere(int index) {
    return rows[index] != 0 && (!refined[index] || rests[index] != 0);
  }

  /** Tokens that have been attended to, from the first on. */
  int attended() {
    return attended;
  }

  /**
   * Attends to tokens up to the first page whose rows are not all there; scores what is there of
   * later ones.
   *
   * @param meanScores {@code [pages][group]}
   */
  void attend(float[] meanScores, Tools tools) {
    if (complete) {
      return;
    }
    scoreAll(meanScores, tools);
    int there = attended;
    while (there < count && isThere(there)) {
      there++;
    }
    // Up to the end of a page.
    while (there > attended && there < count && units[there] == units[there - 1]) {
      there--;
    }
    add(attended, there, tools);
    attended = there;
    if (attended == count && count > 0) {
      complete = true;
      addMeans();
    }
  }

  // ---- scores

  private void scoreAll(float[] meanScores, Tools tools) {
    int from = attended;
    int asked = attended;
    while (from < count) {
      if (!isThere(from) || scored[from]) {
        from++;
        continue;
      }
      int to = from + 1;
      while (to < count && to - from < RUN && isThere(to) && !scored[to]) {
        to++;
      }
      int ahead = Math.min(count, to + AHEAD);
      kernels.prefetchChosen(form, rowsToAsk, Math.max(asked, from), ahead);
      asked = ahead;
      join(from, to, tools);
      kernels.chosenScores(
          query,
          form,
          rows,
          chosen,
          from,
          to,
          meanScores,
          tools.scratch,
          scores,
          stride,
          valueScales);
      refineScores(from, to, tools);
      Arrays.fill(scored, from, to, true);
      from = to;
    }
  }

  private void refineScores(int from, int to, Tools tools) {
    for (int i = from; restAt != null && i < to; i++) {
      if (refined[i]) {
        restAt.addScores(kernels, query, rests[i], 0, tools.scratch, scores, i, stride);
      }
    }
  }

  private void join(int from, int to, Tools tools) {
    for (int i = from; i < to; i++) {
      if (form.isFetched(rows[i])) {
        int token = chosen[i] % TOKENS;
        form.join(at, unitSketches[units[i]], planes, token, rows[i], tools.scratch);
      }
    }
  }

  // ---- weights and values

  private void add(int from, int to, Tools tools) {
    int begin = from;
    int at = from;
    while (at < to) {
      int end = at + 1;
      while (end < to && units[end] == units[at]) {
        end++;
      }
      for (int g = 0; g < group; g++) {
        float most = kernels.max(scores, g * stride + at, end - at);
        if (most > sum.max[g] + ABOVE_REFERENCE) {
          addRun(begin, at, tools);
          begin = at;
          raise(g, most, units[at]);
        }
      }
      at = end;
    }
    addRun(begin, to, tools);
  }

  /** Raises the reference of a query's weights; what was added up so far is scaled down. */
  private void raise(int g, float reference, int unitsBefore) {
    float shrink = (float) Math.exp(sum.max[g] - reference);
    sum.raise(g, reference);
    sum.scaleRotated(g, shrink);
    for (int i = g * TOKENS; i < (g + 1) * TOKENS; i++) {
      lanes[i] *= shrink;
    }
    for (int unit = 0; unit < unitsBefore; unit++) {
      unitWeights[unit * group + g] *= shrink;
    }
  }

  private void addRun(int from, int to, Tools tools) {
    int at = from;
    while (at < to) {
      // A token's lane is its index's, wherever the run begins.
      int end = Math.min(to, (at & -TOKENS) + TOKENS);
      addBlock(at, end, tools);
      at = end;
    }
  }

  private void addBlock(int from, int to, Tools tools) {
    int lane = from % TOKENS;
    int length = to - from;
    float[] weights = tools.weights;
    for (int g = 0; g < group; g++) {
      int first = g * TOKENS;
      Arrays.fill(tools.scores, first, first + TOKENS, Float.NEGATIVE_INFINITY);
      System.arraycopy(scores, g * stride + from, tools.scores, first + lane, length);
      kernels.weigh(tools.scores, first, sum.max[g], weights, first, TOKENS);
      for (int i = first; i < first + TOKENS; i++) {
        lanes[i] += weights[i];
      }
      for (int i = 0; i < length; i++) {
        unitWeights[units[from + i] * group + g] += weights[first + lane + i];
      }
    }
    if (restAt == null) {
      addRows(from, to, lane, tools);
      return;
    }
    // Each token's rest comes right after its row, wherever blocks begin: the same bits then.
    int begin = from;
    for (int i = from; i < to; i++) {
      if (refined[i]) {
        int at = lane + i - from;
        // Weights are scaled by what rows' values are in; rests' have steps of their own.
        for (int g = 0; g < group; g++) {
          restWeights[g * TOKENS] = weights[g * TOKENS + at];
        }
        addRows(begin, i + 1, lane + begin - from, tools);
        restAt.addValues(kernels, group, rests[i], 0, restWeights, 0, tools.scratch, sum.rotated);
        begin = i + 1;
      }
    }
    addRows(begin, to, lane + begin - from, tools);
  }

  /** Adds tokens' values by their rows; their weights, from a lane on, are of no use afterwards. */
  private void addRows(int from, int to, int lane, Tools tools) {
    float[] weights = tools.weights;
    for (int g = 0; g < group; g++) {
      int first = g * TOKENS + lane;
      for (int i = 0; i < to - from; i++) {
        weights[first + i] *= valueScales[from + i];
      }
    }
    if (from < to) {
      kernels.addChosen(form, rows, from, to, group, weights, lane, sum.rotated);
    }
  }

  private void addMeans() {
    int unitCount = units[count - 1] + 1;
    int meanAt = at.valueMean();
    int lines = (Short.BYTES * headDim + LINE - 1) / LINE;
    int asked = 0;
    for (int unit = 0; unit < unitCount; unit += RUN) {
      int to = Math.min(unitCount, unit + RUN);
      int ahead = Math.min(unitCount, to + AHEAD);
      kernels.prefetchEach(sketchesToAsk, asked, ahead, meanAt, lines, LINE);
      asked = ahead;
      kernels.addMeans(
          unitSketches, unit, to, meanAt, headDim, group, unitWeights, unit * group, sum.means);
    }
    for (int g = 0; g < group; g++) {
      float total = 0;
      for (int i = g * TOKENS; i < (g + 1) * TOKENS; i++) {
        total += lanes[i];
      }
      sum.total[g] = total;
    }
  }
}
