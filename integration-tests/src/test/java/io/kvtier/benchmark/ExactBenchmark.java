package io.kvtier.benchmark;

import static io.kvtier.page.PageLayout.TOKENS;

import io.kvtier.attention.GroupQuery;
import io.kvtier.attention.HeadOffsets;
import io.kvtier.attention.NibblePages;
import io.kvtier.attention.RowForm;
import io.kvtier.gpuworker.device.LayerShape;
import io.kvtier.page.Codec;
import io.kvtier.page.PageLayout;
import java.lang.foreign.MemorySegment;
import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.OperationsPerInvocation;
import org.openjdk.jmh.annotations.Param;
import org.openjdk.jmh.annotations.Setup;

/**
 * Scores and values from full codes. What ends in {@code Touched} has its codes brought into the
 * cache first, as dense heads have. {@code copy} and {@code read} take a page's codes, keys and
 * values.
 */
public class ExactBenchmark extends DeviceBenchmark {
  private static final int VALUE_BYTES = TOKENS * HEAD_DIM / 2 + 2 * TOKENS;

  /** From memory: 88 MB of sketches and 205 MB of codes. */
  @Param({"512", "262144"})
  public int tokens;

  @Param({"1", "4"})
  public int group;

  private final PageLayout layout = new PageLayout(Codec.ROT4, Codec.ROT4, KV_HEADS, HEAD_DIM);
  private final HeadOffsets at =
      HeadOffsets.inSlots(layout, LayerShape.SKETCH, 0, LayerShape.CODES);
  private final int sketchLength = layout.lengthOf(LayerShape.SKETCH);
  private final int codesLength = layout.lengthOf(LayerShape.CODES);
  private final RowForm form = new RowForm(HEAD_DIM);
  private final long[] rows = new long[STEP];
  private final MemorySegment rowsToAsk = MemorySegment.ofArray(rows);
  private final int[] positions = new int[STEP];
  private final float[] valueScales = new float[STEP];
  private float[] means;
  private float[] chosenScores;
  private long sketches;
  private long codes;
  private GroupQuery query;
  private float[] scores;
  private float[] weights;
  private float[] sums;

  @Setup
  public void fill() {
    setTokens(tokens);
    sketches = random(headPages() * sketchLength).address();
    var region = random(headPages() * codesLength);
    setReference(region, codesLength);
    codes = region.address();
    query = query(group);
    scores = new float[group * TOKENS];
    means = new float[group];
    chosenScores = new float[group * STEP];
    weights = gaussian(4, group * TOKENS);
    sums = new float[group * scratch.width()];
  }

  @Benchmark
  public float[] scores(Traffic traffic) {
    int first = advance();
    for (int i = first; i < first + STEP; i++) {
      kernels.exactScores(query, at, sketch(i), codes(i), -1L, scratch, scores);
    }
    traffic.bytes += (long) STEP * keyBytes();
    return scores;
  }

  @Benchmark
  public float[] scoresTouched(Traffic traffic) {
    int first = advance();
    for (int i = first; i < first + STEP; i++) {
      kernels.touch(codes(i) + at.fine(), 2 * at.planeLength(), scratch);
      kernels.exactScores(query, at, sketch(i), codes(i), -1L, scratch, scores);
    }
    traffic.bytes += (long) STEP * keyBytes();
    return scores;
  }

  /** One token a page: as many cache lines as for all. */
  @Benchmark
  @OperationsPerInvocation(STEP)
  public float[] scoreOfOneToken(Traffic traffic) {
    int first = advance();
    for (int i = first; i < first + STEP; i++) {
      long token = 1L << (i * 29);
      kernels.exactScores(query, at, sketch(i), codes(i), token, scratch, scores);
    }
    traffic.bytes += (long) STEP * keyBytes();
    return scores;
  }

  /** The part of {@link #scores} that makes whole codes of the planes. */
  @Benchmark
  public void joinPlanes(Traffic traffic) {
    int first = advance();
    for (int i = first; i < first + STEP; i++) {
      NibblePages.join(at, sketch(i), codes(i), scratch);
    }
    traffic.bytes += (long) STEP * 4 * at.planeLength();
  }

  @Benchmark
  public float[] values(Traffic traffic) {
    int first = advance();
    for (int i = first; i < first + STEP; i++) {
      kernels.addValues(at, codes(i), group, weights, scratch, sums);
    }
    traffic.bytes += (long) STEP * VALUE_BYTES;
    return sums;
  }

  @Benchmark
  public float[] valuesTouched(Traffic traffic) {
    int first = advance();
    for (int i = first; i < first + STEP; i++) {
      kernels.touch(codes(i) + at.valueCodes(), VALUE_BYTES, scratch);
      kernels.addValues(at, codes(i), group, weights, scratch, sums);
    }
    traffic.bytes += (long) STEP * VALUE_BYTES;
    return sums;
  }

  /** Scattered rows of chosen tokens: memory asked for them, scores, values. */
  @Benchmark
  @OperationsPerInvocation(STEP)
  public float[] chosenTokens(Traffic traffic) {
    int first = advance();
    for (int i = 0; i < STEP; i++) {
      rows[i] = codes(first + i) + i * 29 % TOKENS * 68L;
    }
    for (int i = 0; i < STEP; i += 16) {
      int to = Math.min(STEP, i + 16);
      kernels.prefetchChosen(form, rowsToAsk, i, to);
      kernels.chosenScores(
          query, form, rows, positions, i, to, means, scratch, chosenScores, STEP, valueScales);
      kernels.addChosen(form, rows, i, to, group, weights, 0, sums);
    }
    traffic.bytes += (long) STEP * form.bytes();
    return sums;
  }

  private long sketch(int i) {
    return sketches + (long) place(i) * sketchLength;
  }

  private long codes(int i) {
    return codes + (long) place(i) * codesLength;
  }

  /** Four planes, key scales, mean key. */
  private int keyBytes() {
    return 4 * at.planeLength() + 2 * TOKENS + 2 * HEAD_DIM;
  }
}
