package io.kvtier.benchmark;

import static io.kvtier.page.PageLayout.TOKENS;

import io.kvtier.attention.GroupQuery;
import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.Param;
import org.openjdk.jmh.annotations.Setup;

/**
 * Exact rows, {@code [tokens][kvHeads][headDim]} bf16, 64 at a time. {@code copy} and {@code read}
 * take the same bytes in one piece.
 */
public class WindowBenchmark extends DeviceBenchmark {
  private static final int ROW_BYTES = HEAD_DIM * Short.BYTES;
  private static final int STRIDE = KV_HEADS * ROW_BYTES;

  /** From memory: 134 MB. */
  @Param({"512", "65536"})
  public int tokens;

  @Param({"1", "4"})
  public int group;

  private long rows;
  private GroupQuery query;
  private float[] scores;
  private float[] weights;
  private float[] sums;

  @Setup
  public void fill() {
    setTokens(tokens);
    var region = random(tokens * STRIDE);
    setReference(region, TOKENS * ROW_BYTES);
    rows = region.address();
    query = query(group);
    scores = new float[group * TOKENS];
    weights = gaussian(4, group * TOKENS);
    sums = new float[group * HEAD_DIM];
  }

  @Benchmark
  public float[] rowScores(Traffic traffic) {
    int first = advance();
    for (int i = first; i < first + STEP; i++) {
      kernels.rowScores(query, row(i), STRIDE, Short.BYTES, TOKENS, scores, 0, TOKENS);
    }
    traffic.bytes += (long) STEP * TOKENS * ROW_BYTES;
    return scores;
  }

  @Benchmark
  public float[] addRows(Traffic traffic) {
    int first = advance();
    for (int i = first; i < first + STEP; i++) {
      kernels.addRows(
          row(i), STRIDE, Short.BYTES, TOKENS, group, HEAD_DIM, weights, 0, TOKENS, sums);
    }
    traffic.bytes += (long) STEP * TOKENS * ROW_BYTES;
    return sums;
  }

  private long row(int i) {
    return rows + (long) page(i) * TOKENS * STRIDE + (long) head(i) * ROW_BYTES;
  }
}
