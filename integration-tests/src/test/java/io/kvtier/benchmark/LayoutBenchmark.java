package io.kvtier.benchmark;

import static io.kvtier.page.PageLayout.TOKENS;

import io.kvtier.attention.GroupQuery;
import io.kvtier.attention.HeadOffsets;
import io.kvtier.attention.NibblePages;
import java.lang.foreign.MemorySegment;
import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.Param;
import org.openjdk.jmh.annotations.Setup;

/**
 * Two layouts of the same 4-bit keys: nested planes, of which a scan reads two, and plain nibbles,
 * of which it must read all. Keys alone; scales and mean lie behind them in both. {@code copy} and
 * {@code read} take a page of nibbles.
 *
 * <p>Bytes a token: {@code :bytes} by the score. A scan reads 38 of planes and 70 of nibbles, exact
 * scores 70 of either.
 */
public class LayoutBenchmark extends DeviceBenchmark {
  private static final int PLANE = HEAD_DIM * Long.BYTES;
  private static final int FACTORS = 2 * TOKENS + 2 * HEAD_DIM;
  private static final int SKETCH = 2 * PLANE + FACTORS;
  private static final int FINE = 2 * PLANE;
  private static final int NIBBLES = 4 * PLANE + FACTORS;

  /** Scales and mean behind two planes; no values. */
  private static final HeadOffsets AT =
      new HeadOffsets(HEAD_DIM, 0, 2 * PLANE, 2 * PLANE + 2 * TOKENS, 0, 0, 0, 0);

  /** From memory: 147 MB either way. */
  @Param({"512", "262144"})
  public int tokens;

  @Param({"1", "4"})
  public int group;

  private long sketches;
  private long fine;
  private long nibbles;
  private GroupQuery query;
  private NibblePages nibblePages;
  private float[] scores;

  @Setup
  public void fill() {
    setTokens(tokens);
    sketches = random(headPages() * SKETCH).address();
    fine = random(headPages() * FINE).address();
    MemorySegment region = allocate(headPages() * NIBBLES);
    nibbles = region.address();
    for (int i = 0; i < headPages(); i++) {
      NibblePages.write(AT, sketch(i), fine(i), nibbles(i), scratch);
    }
    setReference(region, NIBBLES);
    query = query(group);
    nibblePages = new NibblePages(query);
    scores = new float[group * TOKENS];
  }

  @Benchmark
  public float[] scanOfPlanes(Traffic traffic) {
    int first = advance();
    for (int i = first; i < first + STEP; i++) {
      kernels.sketchScores(query, AT, sketch(i), 2, scratch, scores);
    }
    traffic.bytes += (long) STEP * SKETCH;
    return scores;
  }

  @Benchmark
  public float[] scanOfNibbles(Traffic traffic) {
    int first = advance();
    for (int i = first; i < first + STEP; i++) {
      nibblePages.sketchScores(nibbles(i), scratch, scores);
    }
    traffic.bytes += (long) STEP * NIBBLES;
    return scores;
  }

  @Benchmark
  public float[] exactOfPlanes(Traffic traffic) {
    int first = advance();
    for (int i = first; i < first + STEP; i++) {
      kernels.exactScores(query, AT, sketch(i), fine(i), -1L, scratch, scores);
    }
    traffic.bytes += (long) STEP * NIBBLES;
    return scores;
  }

  @Benchmark
  public float[] exactOfNibbles(Traffic traffic) {
    int first = advance();
    for (int i = first; i < first + STEP; i++) {
      nibblePages.exactScores(nibbles(i), scratch, scores);
    }
    traffic.bytes += (long) STEP * NIBBLES;
    return scores;
  }

  /** Scoring alone is too slow to hide memory's latency: all bytes are brought near first. */
  @Benchmark
  public float[] exactOfPlanesTouched(Traffic traffic) {
    int first = advance();
    for (int i = first; i < first + STEP; i++) {
      kernels.touch(sketch(i), SKETCH, scratch);
      kernels.touch(fine(i), FINE, scratch);
      kernels.exactScores(query, AT, sketch(i), fine(i), -1L, scratch, scores);
    }
    traffic.bytes += (long) STEP * NIBBLES;
    return scores;
  }

  @Benchmark
  public float[] exactOfNibblesTouched(Traffic traffic) {
    int first = advance();
    for (int i = first; i < first + STEP; i++) {
      kernels.touch(nibbles(i), NIBBLES, scratch);
      nibblePages.exactScores(nibbles(i), scratch, scores);
    }
    traffic.bytes += (long) STEP * NIBBLES;
    return scores;
  }

  private long sketch(int i) {
    return sketches + (long) place(i) * SKETCH;
  }

  private long fine(int i) {
    return fine + (long) place(i) * FINE;
  }

  private long nibbles(int i) {
    return nibbles + (long) place(i) * NIBBLES;
  }
}
