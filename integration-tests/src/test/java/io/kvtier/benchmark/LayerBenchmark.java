package io.kvtier.benchmark;

import static io.kvtier.page.PageLayout.TOKENS;

import io.kvtier.attention.GroupQuery;
import io.kvtier.attention.Kernels;
import java.util.SplittableRandom;
import java.util.concurrent.TimeUnit;
import org.openjdk.jmh.annotations.AuxCounters;
import org.openjdk.jmh.annotations.BenchmarkMode;
import org.openjdk.jmh.annotations.Fork;
import org.openjdk.jmh.annotations.Measurement;
import org.openjdk.jmh.annotations.Mode;
import org.openjdk.jmh.annotations.OperationsPerInvocation;
import org.openjdk.jmh.annotations.OutputTimeUnit;
import org.openjdk.jmh.annotations.Scope;
import org.openjdk.jmh.annotations.State;
import org.openjdk.jmh.annotations.Warmup;

/**
 * What the benchmarks have in common: the geometry of Llama-3.1-8B (8 KV heads of 128), the walk
 * over a layer's pages and the settings. To run some or all of them:
 *
 * <pre>{@code
 * mvn -q -Pjmh process-test-classes -Djmh="LayoutBenchmark -p group=4"
 * mvn -q -Pjmh process-test-classes
 * }</pre>
 *
 * What {@code jmh} holds is handed to JMH: a regular expression of names, and options such as
 * {@code -i 3 -r 200ms} for a shorter run, {@code -l} for a list, {@code -h} for the rest.
 *
 * <p>The score is millions of tokens of one KV head a second; {@code :bytes} is the memory that
 * must be read for them, in MB/s. Every benchmark measures {@code copy} and {@code read} of the
 * same bytes too: no reading is sooner than these.
 *
 * <p>Why these settings:
 *
 * <ul>
 *   <li>Throughput in tokens: an invocation takes 64 pages, tens of microseconds, so that JMH's
 *       loop and the call count for nothing; samples of single calls would measure the clock.
 *   <li>Microseconds: scores are then 10 to 10,000, and bytes come out as MB/s.
 *   <li>Five seconds to warm up: until the compiler is done with them, vector kernels run on boxed
 *       vectors, hundreds of times slower, for two seconds and more on a busy machine. The memory
 *       needs no warming: it was filled.
 *   <li>One fork, for all of them to take twenty minutes. Which loops are compiled how, and where
 *       memory lies, is drawn anew by each JVM: ask for {@code -f 3} before a difference of less
 *       than a tenth is believed.
 *   <li>One thread, which is JMH's default: the kernels share nothing, and memory bandwidth is what
 *       more threads would measure.
 *   <li>{@code tokens} has two values: pages in the second-level cache, which show the arithmetic,
 *       and pages that exceed every cache, which show what a long context gets.
 * </ul>
 */
@State(Scope.Thread)
@BenchmarkMode(Mode.Throughput)
@OutputTimeUnit(TimeUnit.MICROSECONDS)
@OperationsPerInvocation(LayerBenchmark.STEP * TOKENS)
@Warmup(iterations = 5, time = 1)
@Measurement(iterations = 5, time = 500, timeUnit = TimeUnit.MILLISECONDS)
@Fork(1)
public abstract class LayerBenchmark {
  static final int KV_HEADS = 8;
  static final int HEAD_DIM = 128;

  /** Pages of one head that an invocation takes: as many as a layer of 512 tokens has. */
  static final int STEP = 64;

  final Kernels kernels = Kernels.best();
  private int pages;
  private int next;

  /** Bytes that were gone through, as a rate beside the score. */
  @State(Scope.Thread)
  @AuxCounters(AuxCounters.Type.OPERATIONS)
  public static class Traffic {
    public long bytes;
  }

  /** Sets the layer's length: a power of two, at least 512. */
  final void setTokens(int tokens) {
    if (tokens < STEP * TOKENS / KV_HEADS || Integer.bitCount(tokens) != 1) {
      throw new IllegalArgumentException(
          "tokens is %d; it must be a power of two, at least 512".formatted(tokens));
    }
    pages = tokens / TOKENS;
  }

  /** Pages of the layer, all heads. */
  final int headPages() {
    return pages * KV_HEADS;
  }

  /** Goes on by {@link #STEP} pages: a head's one after the other, then the next head's. */
  final int advance() {
    int from = next;
    next = from + STEP == headPages() ? 0 : from + STEP;
    return from;
  }

  /** The head of the i-th page of the walk. */
  final int head(int i) {
    return i >> Integer.numberOfTrailingZeros(pages);
  }

  /** The page of the i-th page of the walk. */
  final int page(int i) {
    return i & (pages - 1);
  }

  /** The place of the i-th page of the walk where a page's heads lie together, as in a worker. */
  final int place(int i) {
    return page(i) * KV_HEADS + head(i);
  }

  final GroupQuery query(int group) {
    GroupQuery query = new GroupQuery(group, HEAD_DIM);
    query.load(gaussian(3, group * HEAD_DIM), 0, true, kernels);
    return query;
  }

  static float[] gaussian(long seed, int length) {
    SplittableRandom random = new SplittableRandom(seed);
    float[] x = new float[length];
    for (int i = 0; i < length; i++) {
      x[i] = (float) random.nextGaussian();
    }
    return x;
  }
}
