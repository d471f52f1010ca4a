package io.kvtier.benchmark;

import static io.kvtier.page.PageLayout.TOKENS;
import static java.lang.foreign.ValueLayout.JAVA_SHORT;

import io.kvtier.codec.RawRows;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.Param;
import org.openjdk.jmh.annotations.Setup;

/**
 * From scores to weights to candidates, {@code [kvHeads][group][tokens]} fp32, four q heads a KV
 * head. {@code read} is the largest score's.
 */
public class WeightsBenchmark extends LayerBenchmark {
  private static final int GROUP = 4;

  /** Tokens gone through at once: a whole head of the shorter layer. */
  private static final int RUN = 512;

  private static final float[] SHARES = {.25f, .25f, .25f, .25f};

  /** About one token of a hundred is not below it. */
  private static final float FLOOR = .8f;

  /** From memory: 67 MB of scores, as many of weights. */
  @Param({"512", "524288"})
  public int tokens;

  private final int[] positions = new int[80];
  private final float[] masses = new float[80];
  private float[] scores;
  private float[] weights;
  private MemorySegment estimates;

  @Setup
  public void fill() {
    setTokens(tokens);
    scores = new float[KV_HEADS * GROUP * tokens];
    var random = new java.util.SplittableRandom(5);
    for (int i = 0; i < scores.length; i++) {
      scores[i] = (float) random.nextDouble();
    }
    weights = scores.clone();
    estimates = Arena.ofAuto().allocate(2L * scores.length, 64);
    for (int i = 0; i < scores.length; i++) {
      estimates.setAtIndex(JAVA_SHORT, i, RawRows.toBf16(scores[i]));
    }
  }

  @Benchmark
  public float weigh(Traffic traffic) {
    float total = 0;
    int first = advance();
    for (int i = first; i < first + STEP; i += RUN / TOKENS) {
      for (int g = 0; g < GROUP; g++) {
        int at = at(i, g);
        total += kernels.weigh(scores, at, 1, weights, at, RUN);
      }
    }
    traffic.bytes += bytes();
    return total;
  }

  @Benchmark
  public int candidates(Traffic traffic) {
    int count = 0;
    int first = advance();
    for (int i = first; i < first + STEP; i++) {
      long weightsAt = estimates.address() + 2L * at(i, 0);
      count +=
          kernels.candidates(weightsAt, tokens, GROUP, SHARES, 0, FLOOR, 0, positions, masses, 0);
    }
    traffic.bytes += bytes();
    return count;
  }

  @Benchmark
  public float read(Traffic traffic) {
    float largest = 0;
    int first = advance();
    for (int i = first; i < first + STEP; i += RUN / TOKENS) {
      for (int g = 0; g < GROUP; g++) {
        largest = Math.max(largest, kernels.max(scores, at(i, g), RUN));
      }
    }
    traffic.bytes += bytes();
    return largest;
  }

  @Benchmark
  public float[] copy(Traffic traffic) {
    int first = advance();
    for (int i = first; i < first + STEP; i += RUN / TOKENS) {
      for (int g = 0; g < GROUP; g++) {
        System.arraycopy(scores, at(i, g), weights, at(i, g), RUN);
      }
    }
    traffic.bytes += bytes();
    return weights;
  }

  private int at(int i, int g) {
    return (head(i) * GROUP + g) * tokens + page(i) * TOKENS;
  }

  private static long bytes() {
    return (long) STEP * TOKENS * GROUP * Float.BYTES;
  }
}
