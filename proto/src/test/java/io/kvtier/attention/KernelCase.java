package io.kvtier.attention;

import static io.kvtier.page.PageLayout.TOKENS;
import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import io.kvtier.codec.RawRows;
import io.kvtier.codec.RotLevels;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import java.util.Arrays;
import java.util.SplittableRandom;

/**
 * Random pages, rows and queries of one geometry, and every kernel run over them: by the scalar
 * kernels and by others, which must agree.
 */
final class KernelCase implements AutoCloseable {
  /** What the numbers are like. Codes are random bits always: every code is valid. */
  enum Kind {
    GAUSSIAN,
    ZERO_QUERY,
    HUGE_CHANNEL,
    TINY_SCALES
  }

  private static final int PAGES = 7;
  private static final int ROWS = 21;
  private static final double TOLERANCE = 4e-6;
  private static final ValueLayout.OfShort SHORT =
      ValueLayout.JAVA_SHORT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

  private final Arena arena = Arena.ofConfined();
  private final int headDim;
  private final int group;
  private final HeadOffsets at;
  private final long[] pages = new long[PAGES];
  private final MemorySegment memory;
  private final MemorySegment rows;
  private final RowForm form;
  private final long[] chosenRows = new long[ROWS];
  private final int[] chosenPositions = new int[ROWS];

  /** {@code [pages][group]}. */
  private final float[] pageScores;

  private final float[] queries;
  private final float[] weights;

  /** The weights as bf16. */
  private final MemorySegment estimates;

  private final float[] references;
  private final GroupQuery scalarQuery;
  private final GroupQuery otherQuery;
  private final Scratch scratch;
  private final Outputs expected;
  private final Outputs actual;

  /** Where the kernels write. */
  private static final class Outputs {
    final float[] scores;
    final float[] weights;
    final MemorySegment estimates;
    final float[] totals;
    final float[] sums;
    final float[] means;
    final int[] positions = new int[200];
    final float[] masses = new float[200];
    int count;
    float single;

    Outputs(int group, int headDim) {
      scores = new float[group * TOKENS];
      weights = new float[group * TOKENS * 2 + 1];
      estimates = Arena.ofAuto().allocate(2L * PAGES * group * TOKENS + 4, 64);
      totals = new float[(PAGES + 1) * group];
      sums = new float[group * Scratch.width(headDim)];
      means = new float[group * Math.max(headDim, PAGES + 1)];
    }

    void clear() {
      Arrays.fill(scores, 0);
      Arrays.fill(weights, 0);
      estimates.fill((byte) 0);
      Arrays.fill(totals, 0);
      Arrays.fill(sums, 0);
      Arrays.fill(means, 0);
      Arrays.fill(positions, 0);
      Arrays.fill(masses, 0);
      count = 0;
      single = 0;
    }
  }

  KernelCase(int headDim, int group, Kind kind) {
    this.headDim = headDim;
    this.group = group;
    int scales = headDim * 32;
    int valueCodes = scales + 2 * TOKENS;
    int valueScales = valueCodes + TOKENS * headDim / 2;
    int means = valueScales + 2 * TOKENS;
    int length = means + 4 * headDim + 128;
    this.at =
        new HeadOffsets(
            headDim, 0, scales, means, means + 2 * headDim, headDim * 16, valueCodes, valueScales);
    SplittableRandom random = new SplittableRandom(31L * headDim + group);
    this.memory = arena.allocate((long) PAGES * length, 64);
    byte[] bits = new byte[PAGES * length];
    random.nextBytes(bits);
    MemorySegment.copy(bits, 0, memory, JAVA_BYTE, 0, bits.length);
    float scale = kind == Kind.TINY_SCALES ? 1e-6f : 1f;
    for (int page = 0; page < PAGES; page++) {
      pages[page] = memory.address() + (long) page * length;
      halves(random, page * length + scales, TOKENS + 1, scale);
      halves(random, page * length + valueScales, TOKENS + 1, scale);
      halves(random, page * length + means, 2 * headDim + 1, 1);
    }
    this.rows = arena.allocate(2L * ROWS * headDim * Float.BYTES + 64, 64);
    for (long i = 0; i < rows.byteSize(); i += 4) {
      // Either half is a sound bf16, and the whole a sound fp32.
      int upper = Float.floatToRawIntBits((float) random.nextGaussian()) >>> 16;
      int lower = Float.floatToRawIntBits((float) random.nextGaussian()) >>> 16;
      rows.set(ValueLayout.JAVA_INT, i, upper << 16 | lower);
    }
    this.queries = gaussian(random, group * headDim, kind == Kind.ZERO_QUERY ? 0 : 2);
    if (kind == Kind.HUGE_CHANNEL) {
      for (int g = 0; g < group; g++) {
        queries[g * headDim + 3] = 500;
      }
    }
    this.weights = gaussian(random, group * (TOKENS + 1), 1);
    for (int i = 0; i < weights.length; i++) {
      weights[i] = i % 7 == 0 ? 0 : weights[i] * weights[i];
    }
    this.estimates = arena.allocate(2L * weights.length, 64);
    for (int i = 0; i < weights.length; i++) {
      estimates.set(SHORT, 2L * i, RawRows.toBf16(weights[i]));
    }
    this.references = gaussian(random, (PAGES + 1) * group, 3);
    this.scalarQuery = new GroupQuery(group, headDim);
    this.otherQuery = new GroupQuery(group, headDim);
    this.scratch = new Scratch(group, headDim);
    this.expected = new Outputs(group, headDim);
    this.actual = new Outputs(group, headDim);
    this.form = new RowForm(headDim);
    this.pageScores = gaussian(random, PAGES * group, 2);
    fillChosen(random);
    this.steps = makeSteps();
    scalarQuery.load(queries, 0, true, Kernels.scalar());
    otherQuery.load(queries, 0, true, Kernels.scalar());
  }

  private void halves(SplittableRandom random, int from, int count, float deviation) {
    for (int i = 0; i < count; i++) {
      float x = (float) random.nextGaussian() * deviation;
      memory.set(SHORT, from + 2L * i, Float.floatToFloat16(i % 17 == 0 ? x * 1e-6f : x));
    }
  }

  /** Rows of random codes, in no order, a scale that is not tiny with each. */
  private void fillChosen(SplittableRandom random) {
    int stride = form.bytes() + 12;
    MemorySegment chosen = arena.allocate((long) ROWS * stride + 64, 64);
    byte[] bits = new byte[ROWS * stride];
    random.nextBytes(bits);
    MemorySegment.copy(bits, 0, chosen, JAVA_BYTE, 0, bits.length);
    for (int i = 0; i < ROWS; i++) {
      long row = (long) (ROWS - 1 - i) * stride;
      chosenRows[i] = chosen.address() + row;
      chosenPositions[i] = random.nextInt(PAGES * TOKENS);
      chosen.set(SHORT, row + form.keyScaleAt(), half(random));
      chosen.set(SHORT, row + form.valueScaleAt(), half(random));
    }
  }

  private static short half(SplittableRandom random) {
    return Float.floatToFloat16((float) random.nextDouble(.1, 2));
  }

  private static float[] gaussian(SplittableRandom random, int length, double deviation) {
    float[] x = new float[length];
    for (int i = 0; i < length; i++) {
      x[i] = (float) (random.nextGaussian() * deviation);
    }
    return x;
  }

  /** Runs every kernel with both and fails, with the kernel's name, where they differ. */
  void requireParity(Kernels other) {
    GroupQuery filled = new GroupQuery(group, headDim);
    filled.load(queries, 0, true, other);
    assertThat(filled.tables().mismatch(scalarQuery.tables())).as("fillTables").isEqualTo(-1);
    for (Step step : steps) {
      expected.clear();
      actual.clear();
      step.call.run(Kernels.scalar(), scalarQuery, expected);
      step.call.run(other, otherQuery, actual);
      requireClose(step.name + " scores", actual.scores, expected.scores);
      if (step.name.startsWith("sketchWeights")) {
        requireEstimates(numbers(actual.estimates), numbers(expected.estimates));
        requireEstimates(actual.totals, expected.totals);
      } else {
        requireClose(step.name + " weights", actual.weights, expected.weights);
        requireClose(step.name + " totals", actual.totals, expected.totals);
      }
      requireClose(step.name + " sums", ordered(actual.sums), ordered(expected.sums));
      requireClose(step.name + " means", actual.means, expected.means);
      requireClose(step.name + " masses", actual.masses, expected.masses);
      assertThat(actual.count).as(step.name + " count").isEqualTo(expected.count);
      assertThat(actual.positions).as(step.name + " positions").isEqualTo(expected.positions);
      requireClose(step.name, new float[] {actual.single}, new float[] {expected.single});
    }
  }

  /** The dimensions alone, in their order. */
  private float[] ordered(float[] sums) {
    int width = scratch.width();
    float[] ordered = new float[group * headDim];
    for (int g = 0; g < group; g++) {
      scratch.order(sums, g * width);
      System.arraycopy(sums, g * width, ordered, g * headDim, headDim);
    }
    return ordered;
  }

  private static void requireClose(String name, float[] actual, float[] expected) {
    float largest = 0;
    for (float x : expected) {
      largest = Float.isInfinite(x) ? largest : Math.max(largest, Math.abs(x));
    }
    for (int i = 0; i < expected.length; i++) {
      if (actual[i] != expected[i]) {
        assertThat(actual[i])
            .as("%s[%d]", name, i)
            .isCloseTo(expected[i], within((float) (TOLERANCE * largest)));
      }
    }
  }

  /**
   * Each to a part of its own size: a score that large terms cancel out in is known to 1e-4, and
   * its weight not better; the nearest bf16 may then be the next one.
   */
  private static void requireEstimates(float[] actual, float[] expected) {
    for (int i = 0; i < expected.length; i++) {
      assertThat(actual[i])
          .as("sketchWeights[%d]", i)
          .isCloseTo(expected[i], within(Math.abs(expected[i]) * (5e-4f + 1f / 128)));
    }
  }

  private static float[] numbers(MemorySegment bf16) {
    float[] numbers = new float[(int) (bf16.byteSize() / 2)];
    for (int i = 0; i < numbers.length; i++) {
      numbers[i] = RawRows.ofBf16(bf16.get(SHORT, 2L * i));
    }
    return numbers;
  }

  private record Step(String name, Call call) {}

  /** One kernel call. */
  private interface Call {
    void run(Kernels kernels, GroupQuery query, Outputs out);
  }

  private Step chosen(String name, int from, int to) {
    return new Step(
        name,
        (k, q, o) ->
            k.chosenScores(
                q,
                form,
                chosenRows,
                chosenPositions,
                from,
                to,
                pageScores,
                scratch,
                o.scores,
                TOKENS,
                o.masses));
  }

  private Step weights(String name, int from, int to, int planes) {
    return new Step(
        name,
        (k, q, o) ->
            k.sketchWeights(
                q,
                at,
                pages,
                from,
                to,
                planes,
                scratch,
                references,
                group,
                o.estimates.address() + 2,
                o.totals,
                o.means,
                group));
  }

  private final Step[] steps;

  /** Every kernel once, outputs thrown away. */
  void runAll(Kernels kernels) {
    for (int g = 0; g < group; g++) {
      kernels.fillTables(otherQuery, g);
    }
    for (Step step : steps) {
      step.call.run(kernels, otherQuery, actual);
    }
  }

  private Step[] makeSteps() {
    MemorySegment rowsToAsk = MemorySegment.ofArray(chosenRows);
    MemorySegment pagesToAsk = MemorySegment.ofArray(pages);
    return new Step[] {
      new Step(
          "sketchScores 1", (k, q, o) -> k.sketchScores(q, at, pages[1], 1, scratch, o.scores)),
      new Step(
          "sketchScores 2", (k, q, o) -> k.sketchScores(q, at, pages[2], 2, scratch, o.scores)),
      weights("sketchWeights", 0, PAGES, 2),
      weights("sketchWeights of a few", 2, 5, 2),
      weights("sketchWeights 1", 1, PAGES, 1),
      exact("exactScores all", -1L),
      exact("exactScores one", 1L << 37),
      exact("exactScores three", 1L << 63 | 1L << 30 | 1),
      exact("exactScores many", 0x8001_0F00L),
      exact("exactScores none", 0),
      new Step("max", (k, q, o) -> o.single = k.max(references, 0, lastIsLargest())),
      new Step("weigh", (k, q, o) -> o.single = k.weigh(weights, 1, 2.5f, o.weights, 1, TOKENS)),
      new Step(
          "weigh far below", (k, q, o) -> o.single = k.weigh(weights, 0, 88f, o.weights, 0, 16)),
      new Step("maxima", (k, q, o) -> k.maxima(weights, group, o.totals)),
      new Step(
          "weighPage", (k, q, o) -> k.weighPage(weights, group, references, o.weights, o.totals)),
      new Step(
          "addValues", (k, q, o) -> k.addValues(at, pages[0], group, weights, scratch, o.sums)),
      new Step("prefetchChosen", (k, q, o) -> k.prefetchChosen(form, rowsToAsk, 0, ROWS)),
      new Step(
          "prefetchEach", (k, q, o) -> k.prefetchEach(pagesToAsk, 1, 3, at.valueMean(), 2, 64)),
      chosen("chosenScores", 0, ROWS),
      chosen("chosenScores of one", 2, 3),
      new Step(
          "addChosen",
          (k, q, o) -> k.addChosen(form, chosenRows, 0, ROWS, group, weights, 0, o.sums)),
      new Step(
          "addChosen later",
          (k, q, o) -> k.addChosen(form, chosenRows, 1, ROWS - 1, group, weights, 5, o.sums)),
      new Step(
          "addRestScores",
          (k, q, o) -> k.addRestScores(q, chosenRows[1], .37f, scratch, o.scores, 5, TOKENS)),
      new Step(
          "addRest",
          (k, q, o) -> k.addRest(headDim, group, chosenRows[2], .21f, weights, 7, scratch, o.sums)),
      new Step(
          "addMeans",
          (k, q, o) ->
              k.addMeans(pages, 1, 3, at.valueMean(), headDim, group, weights, 5, o.means)),
      new Step(
          "rowScores bf16",
          (k, q, o) -> k.rowScores(q, rows.address(), headDim * 2, 2, ROWS, o.scores, 3, TOKENS)),
      new Step(
          "rowScores fp32",
          (k, q, o) ->
              k.rowScores(q, rows.address(), headDim * 8, 4, ROWS - 1, o.scores, 0, TOKENS)),
      new Step(
          "addRows bf16",
          (k, q, o) ->
              k.addRows(
                  rows.address(),
                  headDim * 2,
                  2,
                  ROWS,
                  group,
                  headDim,
                  weights,
                  2,
                  TOKENS,
                  o.means)),
      new Step(
          "addRows fp32",
          (k, q, o) ->
              k.addRows(
                  rows.address(),
                  headDim * 4,
                  4,
                  ROWS,
                  group,
                  headDim,
                  weights,
                  0,
                  TOKENS,
                  o.means)),
      new Step(
          "candidates",
          (k, q, o) ->
              o.count =
                  k.candidates(
                      estimates.address(),
                      TOKENS,
                      group,
                      SHARES,
                      0,
                      .31f,
                      640,
                      o.positions,
                      o.masses,
                      7))
    };
  }

  private Step exact(String name, long tokens) {
    return new Step(
        name, (k, q, o) -> k.exactScores(q, at, pages[1], pages[1], tokens, scratch, o.scores));
  }

  private static final float[] SHARES = new float[256];

  static {
    for (int i = 0; i < SHARES.length; i++) {
      SHARES[i] = .05f + i % 5 * .03f;
    }
  }

  /** So many references that the last of them is the largest. */
  private int lastIsLargest() {
    int last = 0;
    for (int i = 1; i < references.length; i++) {
      last = references[i] > references[last] ? i : last;
    }
    return last + 1;
  }

  /**
   * Root mean square of the rounding of the tables, relative to that of what a sketch of so many
   * planes leaves out of a standard normal key: √.3634 of its norm for one plane, √.1175 for two.
   */
  double tableError(int planes) {
    Kernels.scalar().sketchScores(scalarQuery, at, pages[1], planes, scratch, expected.scores);
    double rounding = 0;
    double left = 0;
    for (int g = 0; g < group; g++) {
      double norm = 0;
      for (int i = 0; i < headDim; i++) {
        norm += Math.pow(scalarQuery.rotated[g * headDim + i], 2);
      }
      for (int t = 0; t < TOKENS; t++) {
        double scale = half(at.keyScales(), t);
        double difference = (expected.scores[g * TOKENS + t] - ideal(g, t, planes));
        rounding += difference * difference;
        left += norm * scale * scale * (planes == 1 ? .3634 : .1175);
      }
    }
    return Math.sqrt(rounding / left);
  }

  private double ideal(int g, int t, int planes) {
    double dot = 0;
    double mean = 0;
    for (int i = 0; i < headDim; i++) {
      int sign = bit(i, t, 0);
      int coarse = bit(i, t, 1);
      double level =
          planes == 1
              ? RotLevels.SIGN_LEVEL * (2 * sign - 1)
              : RotLevels.of(4).coarseLevel(2 * sign + coarse);
      dot += scalarQuery.rotated[g * headDim + i] * level;
      mean += scalarQuery.plain[g * headDim + i] * (double) half(at.keyMean(), i);
    }
    return dot * half(at.keyScales(), t) + mean;
  }

  private int bit(int dimension, int token, int plane) {
    long row = pages[1] - memory.address() + (plane * headDim / 8 + dimension / 8) * (long) TOKENS;
    return memory.get(JAVA_BYTE, row + token) >> dimension % 8 & 1;
  }

  private float half(int from, int index) {
    return Float.float16ToFloat(memory.get(SHORT, pages[1] - memory.address() + from + 2L * index));
  }

  @Override
  public void close() {
    arena.close();
  }
}
