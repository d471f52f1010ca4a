package io.kvtier.attention;

import static io.kvtier.page.PageLayout.TOKENS;

import io.kvtier.codec.Vectors;
import io.kvtier.page.Prefetch;
import java.lang.foreign.MemorySegment;
import java.lang.ref.Reference;

/**
 * The kernels on the vector unit, of whatever width it has. The loops are in {@link SketchKernels},
 * {@link CodeKernels}, {@link ValueKernels}, {@link ChosenKernels}, {@link RestKernels} and {@link
 * RowKernels}.
 */
final class VectorKernels implements Kernels {
  static final VectorKernels INSTANCE = new VectorKernels();

  /** So many tokens of a page are scored sooner one by one than with their neighbours. */
  private static final int FEW_TOKENS = 3;

  /** Memory is asked for so many pages ahead. */
  private static final int AHEAD = 4;

  private VectorKernels() {}

  @Override
  public String description() {
    return Vectors.description() + (Prefetch.available() ? ", memory asked ahead" : "");
  }

  @Override
  public void fillTables(GroupQuery query, int g) {
    SketchKernels.fillTables(query, g);
  }

  @Override
  public void sketchScores(
      GroupQuery query, HeadOffsets at, long sketch, int planes, Scratch scratch, float[] scores) {
    sum(query, at, sketch, planes, scratch);
    for (int g = 0; g < query.group(); g++) {
      float step = query.scoreStep(g, planes);
      float bias = query.scoreBias(g, planes);
      SketchKernels.scores(
          scratch.ordered, g, step, bias, scratch.halves, scratch.scaled[g], scores);
    }
    keep(query, scratch);
  }

  /** Leaves ordered sums in the scratch, mean scores in its scaled, key scales in its halves. */
  private static void sum(
      GroupQuery query, HeadOffsets at, long sketch, int planes, Scratch scratch) {
    sumPage(query, at, sketch, planes, scratch.sums, 0);
    SketchKernels.order(scratch.sums, query.group() * TOKENS, scratch.ordered);
    ScoreKernels.meanScores(query, sketch + at.keyMean(), scratch.lanes, scratch.scaled);
    ScoreKernels.halves(sketch + at.keyScales(), TOKENS, scratch.halves);
  }

  /**
   * Adds up a page's table entries.
   *
   * @param ahead the sketch of a page to come, of which all parts but the last are asked for
   *     meanwhile; 0: none
   */
  private static void sumPage(
      GroupQuery query, HeadOffsets at, long sketch, int planes, long sums, long ahead) {
    int rows = planes * at.headDim() / 8;
    long row = sketch + at.planes();
    int parts = parts(query.group());
    int part = 0;
    for (int g = 0; g < query.group(); g += query.blockAt(g)) {
      long to = sums + 2L * g * TOKENS;
      ask(ahead, at, part++, parts);
      if (query.blockAt(g) == 4) {
        SketchKernels.sumTwo(query, g, row, rows, to);
        ask(ahead, at, part++, parts);
        SketchKernels.sumTwo(query, g + 2, row, rows, to + 4 * TOKENS);
      } else {
        SketchKernels.sumOne(query, g, row, rows, to);
      }
    }
    ask(ahead, at, part, parts);
  }

  /**
   * In how many parts a scan asks memory for a page: before each kernel that adds up table entries,
   * behind the last, and before the page that is scanned is weighed.
   */
  private static int parts(int group) {
    return group / 4 * 2 + group % 4 + 2;
  }

  /**
   * Asks memory for a part of what a scan reads of a sketch. A core can wait for few lines at once,
   * some 10 to 16 on processors of today, and is held up when it asks for more: so what is asked
   * for is spread over the work that is done meanwhile.
   */
  private static void ask(long sketch, HeadOffsets at, int part, int parts) {
    int lines = (at.valueMean() / Prefetch.LINE + parts - 1) / parts;
    int from = part * lines * Prefetch.LINE;
    int left = at.valueMean() - from;
    if (sketch != 0 && left > 0) {
      Prefetch.lines(sketch + from, Math.min(left, lines * Prefetch.LINE));
    }
  }

  /** Has the memory stay that the query and the scratch keep off-heap. */
  private static void keep(GroupQuery query, Scratch scratch) {
    try {
      // Nothing is left to do with them.
    } finally {
      Reference.reachabilityFence(query);
      Reference.reachabilityFence(scratch);
    }
  }

  @Override
  public void sketchWeights(
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
      int totalsAt) {
    int group = query.group();
    int parts = parts(group);
    for (int page = from; page < to; page += Scratch.PAGES) {
      int count = Math.min(Scratch.PAGES, to - page);
      int done = (page - from) * group;
      for (int i = 0; i < count; i++) {
        long ahead = page + i + AHEAD < to ? sketches[page + i + AHEAD] : 0;
        long sums = scratch.sums + 2L * i * group * TOKENS;
        sumPage(query, at, sketches[page + i], planes, sums, ahead);
      }
      meanScores(query, at, sketches, page, count, scratch, meanScores, totalsAt + done);
      terms(
          query,
          planes,
          count,
          meanScores,
          totalsAt + done,
          references,
          referencesAt + done,
          scratch.terms);
      for (int i = 0; i < count; i++) {
        ask(page + i + AHEAD < to ? sketches[page + i + AHEAD] : 0, at, parts - 1, parts);
        SketchKernels.factors(sketches[page + i] + at.keyScales(), scratch.factors);
        SketchKernels.weights(
            scratch.sums + 2L * i * group * TOKENS,
            group,
            scratch.factors,
            scratch.terms,
            i * group * 3,
            weights + 2L * (done + i * group) * TOKENS,
            scratch.pageLanes + 4L * i * group * KernelLanes.LANES);
      }
      ScoreKernels.sums(scratch.pageLanes, count * group, totals, totalsAt + done);
    }
    keep(query, scratch);
  }

  /** The mean's scores of up to four pages. */
  private static void meanScores(
      GroupQuery query,
      HeadOffsets at,
      long[] sketches,
      int page,
      int count,
      Scratch scratch,
      float[] scores,
      int scoresAt) {
    int group = query.group();
    if (count < Scratch.PAGES || query.blockAt(group - 1 & -4) != 4) {
      for (int i = 0; i < count; i++) {
        long mean = sketches[page + i] + at.keyMean();
        ScoreKernels.meanScores(query, mean, scratch.lanes, scratch.scaled);
        System.arraycopy(scratch.scaled, 0, scores, scoresAt + i * group, group);
      }
      return;
    }
    for (int g = 0; g < group; g += 4) {
      ScoreKernels.meanScoresOfFour(
          query.plain,
          g * at.headDim(),
          at.headDim(),
          sketches[page] + at.keyMean(),
          sketches[page + 1] + at.keyMean(),
          sketches[page + 2] + at.keyMean(),
          sketches[page + 3] + at.keyMean(),
          scratch.pageLanes + 4L * g * KernelLanes.LANES,
          4 * group * KernelLanes.LANES);
    }
    ScoreKernels.sums(scratch.pageLanes, count * group, scores, scoresAt);
  }

  private static void terms(
      GroupQuery query,
      int planes,
      int count,
      float[] meanScores,
      int meansAt,
      float[] references,
      int referencesAt,
      float[] terms) {
    int group = query.group();
    for (int g = 0; g < group; g++) {
      float step = query.scoreStep(g, planes);
      float bias = query.scoreBias(g, planes);
      for (int i = 0; i < count; i++) {
        int slot = i * group + g;
        terms[3 * slot] = step;
        terms[3 * slot + 1] = bias;
        terms[3 * slot + 2] = meanScores[meansAt + slot] - references[referencesAt + slot];
      }
    }
  }

  @Override
  public void exactScores(
      GroupQuery query,
      HeadOffsets at,
      long sketch,
      long codes,
      long tokens,
      Scratch scratch,
      float[] scores) {
    boolean few = Long.bitCount(tokens) <= FEW_TOKENS;
    if (few) {
      scoreEach(query, at, sketch, codes, tokens, scratch, scores);
    } else {
      CodeKernels.joinPlanes(at, sketch, codes, scratch.codes);
    }
    ScoreKernels.meanScores(query, sketch + at.keyMean(), scratch.lanes, scratch.scaled);
    if (!few) {
      int from = (int) tokens == 0 ? TOKENS / 2 : 0;
      int to = (int) (tokens >>> 32) == 0 ? TOKENS / 2 : TOKENS;
      scorePart(query, from, to, scratch, scores);
    }
    ScoreKernels.scale(scores, query.group(), tokens, sketch + at.keyScales(), scratch.scaled);
  }

  private static void scorePart(
      GroupQuery query, int from, int to, Scratch scratch, float[] scores) {
    for (int g = 0; g < query.group(); g += query.blockAt(g)) {
      if (query.blockAt(g) == 4) {
        CodeKernels.scoreFour(query, g, scratch.codes, from, to, scores);
      } else {
        CodeKernels.scoreOne(query, g, scratch.codes, from, to, scores);
      }
    }
  }

  private static void scoreEach(
      GroupQuery query,
      HeadOffsets at,
      long sketch,
      long codes,
      long tokens,
      Scratch scratch,
      float[] scores) {
    for (long left = tokens; left != 0; left &= left - 1) {
      int token = Long.numberOfTrailingZeros(left);
      CodeKernels.gather(at, sketch, codes, token, scratch.words);
      for (int g = 0; g < query.group(); g += query.blockAt(g)) {
        int scoresAt = g * TOKENS + token;
        if (query.blockAt(g) == 4) {
          CodeKernels.scoreWordsFour(query, g, scratch.words, scratch.lanes);
          ScoreKernels.sums(scratch.lanes, 4, scores, scoresAt, TOKENS);
        } else {
          scores[scoresAt] = CodeKernels.scoreWords(query, g, scratch.words);
        }
      }
    }
  }

  @Override
  public void touch(long address, int length, Scratch scratch) {
    scratch.touched += ScoreKernels.touch(address, length);
  }

  @Override
  public void prefetch(long address, int length) {
    Prefetch.lines(address, length);
  }

  @Override
  public void prefetchEach(MemorySegment addresses, int from, int to, int at, int lines, int step) {
    Prefetch.each(addresses, from, to, at, lines, step);
  }

  @Override
  public float max(float[] scores, int at, int count) {
    return ScoreKernels.max(scores, at, count);
  }

  @Override
  public float weigh(
      float[] scores, int at, float reference, float[] weights, int weightsAt, int count) {
    return ScoreKernels.weigh(scores, at, reference, weights, weightsAt, count);
  }

  @Override
  public void maxima(float[] scores, int group, float[] maxima) {
    ScoreKernels.maxima(scores, group, maxima);
  }

  @Override
  public void weighPage(
      float[] scores, int group, float[] references, float[] weights, float[] totals) {
    ScoreKernels.weighPage(scores, group, references, weights, totals);
  }

  @Override
  public void addValues(
      HeadOffsets at, long codes, int group, float[] weights, Scratch scratch, float[] sums) {
    ValueKernels.scaleWeights(weights, group, codes + at.valueScales(), scratch.scaled);
    addRows(at, codes, 0, TOKENS, group, scratch, sums);
  }

  private static void addRows(
      HeadOffsets at, long codes, int from, int to, int group, Scratch scratch, float[] sums) {
    long rows = codes + at.valueCodes();
    int g = 0;
    for (; group - g >= 4; g += 4) {
      ValueKernels.addFour(rows, at.headDim(), from, to, scratch.scaled, g, sums);
    }
    for (; g < group; g++) {
      ValueKernels.addOne(rows, at.headDim(), from, to, scratch.scaled, g, sums);
    }
  }

  @Override
  public void prefetchChosen(RowForm form, MemorySegment rows, int from, int to) {
    int lines = (form.bytes() + Prefetch.LINE - 1) / Prefetch.LINE;
    Prefetch.each(rows, from, to, 0, lines, Prefetch.LINE);
  }

  @Override
  public void chosenScores(
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
      float[] valueScales) {
    int group = query.group();
    int count = to - from;
    for (int g = 0; g < group; g += query.blockAt(g)) {
      int block = query.blockAt(g);
      if (block == 4) {
        ChosenKernels.dotsFour(query, g, rows, from, to, scratch.chosenLanes);
        ScoreKernels.sums(scratch.chosenLanes, 4 * count, scratch.dots, 0, 1);
      } else {
        ChosenKernels.dotsOne(query, g, rows, from, to, scratch.dots);
      }
      for (int h = 0; h < block; h++) {
        ChosenKernels.scale(
            scratch.dots,
            h,
            block,
            rows,
            positions,
            from,
            to,
            form,
            meanScores,
            group,
            g + h,
            scores,
            (g + h) * stride);
      }
    }
    ChosenKernels.valueScales(rows, from, to, form, valueScales);
  }

  @Override
  public void addChosen(
      RowForm form,
      long[] rows,
      int from,
      int to,
      int group,
      float[] scaled,
      int scaledAt,
      float[] sums) {
    int headDim = form.headDim();
    int width = Scratch.width(headDim);
    int values = form.valuesAt();
    int g = 0;
    for (; group - g >= 4; g += 4) {
      int at = g * TOKENS + scaledAt;
      ChosenKernels.addFour(
          rows, from, to, values, headDim, scaled, at, TOKENS, sums, g * width, width);
    }
    for (; g < group; g++) {
      int at = g * TOKENS + scaledAt;
      ChosenKernels.addOne(rows, from, to, values, headDim, scaled, at, sums, g * width);
    }
  }

  @Override
  public void addRestScores(
      GroupQuery query,
      long codes,
      float step,
      Scratch scratch,
      float[] scores,
      int at,
      int stride) {
    int headDim = query.headDim();
    RestKernels.read(codes, headDim, scratch.rest);
    for (int g = 0; g < query.group(); g++) {
      scores[at + g * stride] +=
          step * RestKernels.dot(query.rotated, g * headDim, scratch.rest, headDim);
    }
  }

  @Override
  public void addRest(
      int headDim,
      int group,
      long codes,
      float step,
      float[] weights,
      int at,
      Scratch scratch,
      float[] sums) {
    RestKernels.read(codes, headDim, scratch.rest);
    for (int g = 0; g < group; g++) {
      float weight = weights[at + g * TOKENS] * step;
      RestKernels.add(scratch.rest, headDim, weight, sums, g * scratch.width());
    }
  }

  @Override
  public void addMeans(
      long[] pages,
      int from,
      int to,
      int meanAt,
      int headDim,
      int group,
      float[] weights,
      int weightsAt,
      float[] sums) {
    int g = 0;
    for (; group - g >= 4; g += 4) {
      int i = 0;
      for (; i <= headDim - 2 * KernelLanes.LANES; i += 2 * KernelLanes.LANES) {
        int sumsAt = g * headDim + i;
        ValueKernels.addMeansWide(
            pages, from, to, meanAt + 2 * i, weights, weightsAt + g, group, sums, sumsAt, headDim);
      }
      for (; i < headDim; i += KernelLanes.LANES) {
        int sumsAt = g * headDim + i;
        ValueKernels.addMeansFour(
            pages, from, to, meanAt + 2 * i, weights, weightsAt + g, group, sums, sumsAt, headDim);
      }
    }
    for (; g < group; g++) {
      for (int i = 0; i < headDim; i += KernelLanes.LANES) {
        int sumsAt = g * headDim + i;
        ValueKernels.addMeansOne(
            pages, from, to, meanAt + 2 * i, weights, weightsAt + g, group, sums, sumsAt);
      }
    }
  }

  @Override
  public void rowScores(
      GroupQuery query,
      long rows,
      int stride,
      int elementBytes,
      int count,
      float[] scores,
      int scoresAt,
      int scoresStride) {
    for (int g = 0; g < query.group(); g++) {
      int at = g * scoresStride + scoresAt;
      if (elementBytes == Short.BYTES) {
        RowKernels.scoreBf16(query, g, rows, stride, count, scores, at);
      } else {
        RowKernels.scoreFp32(query, g, rows, stride, count, scores, at);
      }
    }
  }

  @Override
  public void addRows(
      long rows,
      int stride,
      int elementBytes,
      int count,
      int group,
      int headDim,
      float[] weights,
      int weightsAt,
      int weightsStride,
      float[] sums) {
    for (int g = 0; g < group; g++) {
      int at = g * weightsStride + weightsAt;
      if (elementBytes == Short.BYTES) {
        RowKernels.addBf16(rows, stride, count, headDim, weights, at, sums, g * headDim);
      } else {
        RowKernels.addFp32(rows, stride, count, headDim, weights, at, sums, g * headDim);
      }
    }
  }

  @Override
  public int candidates(
      long weights,
      int stride,
      int group,
      float[] shares,
      int sharesAt,
      float floor,
      int position,
      int[] positions,
      float[] masses,
      int count) {
    if (group == 4) {
      return ScoreKernels.candidatesOfFour(
          weights, stride, shares, sharesAt, floor, position, positions, masses, count);
    }
    return ScoreKernels.candidates(
        weights, stride, group, shares, sharesAt, floor, position, positions, masses, count);
  }
}
