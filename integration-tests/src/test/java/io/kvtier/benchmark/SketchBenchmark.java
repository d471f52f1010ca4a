package io.kvtier.benchmark;

import static io.kvtier.page.PageLayout.TOKENS;

import io.kvtier.attention.GroupQuery;
import io.kvtier.attention.HeadOffsets;
import io.kvtier.gpuworker.device.LayerShape;
import io.kvtier.page.Codec;
import io.kvtier.page.PageLayout;
import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.Param;
import org.openjdk.jmh.annotations.Setup;

/** Scans of the sketch for the q heads of one KV head. */
public class SketchBenchmark extends DeviceBenchmark {
  /** From memory: 88 MB of sketches. */
  @Param({"512", "262144"})
  public int tokens;

  @Param({"1", "4"})
  public int group;

  private final PageLayout layout = new PageLayout(Codec.ROT4, Codec.ROT4, KV_HEADS, HEAD_DIM);
  private final HeadOffsets at =
      HeadOffsets.inSlots(layout, LayerShape.SKETCH, 0, LayerShape.CODES);
  private final int length = layout.lengthOf(LayerShape.SKETCH);
  private long sketches;
  private GroupQuery query;
  private float[] scores;
  private long weights;
  private final long[] addresses = new long[STEP];
  private float[] references;
  private float[] means;
  private float[] totals;

  @Setup
  public void fill() {
    setTokens(tokens);
    var region = random(headPages() * length);
    setReference(region, length);
    sketches = region.address();
    query = query(group);
    scores = new float[group * TOKENS];
    weights = allocate(2 * STEP * group * TOKENS).address();
    references = new float[STEP * group];
    means = new float[STEP * group];
    totals = new float[STEP * group];
  }

  @Benchmark
  public float[] onePlane(Traffic traffic) {
    return scan(1, traffic);
  }

  @Benchmark
  public float[] twoPlanes(Traffic traffic) {
    return scan(2, traffic);
  }

  private float[] scan(int planes, Traffic traffic) {
    int first = advance();
    for (int i = first; i < first + STEP; i++) {
      kernels.sketchScores(query, at, address(i), planes, scratch, scores);
    }
    traffic.bytes += (long) STEP * bytesRead(planes);
    return scores;
  }

  /** On to weights, as a worker scans. */
  @Benchmark
  public float[] twoPlanesToWeights(Traffic traffic) {
    int first = advance();
    for (int i = 0; i < STEP; i++) {
      addresses[i] = address(first + i);
    }
    kernels.sketchWeights(
        query, at, addresses, 0, STEP, 2, scratch, references, 0, weights, totals, means, 0);
    traffic.bytes += (long) STEP * bytesRead(2);
    return scores;
  }

  private long address(int i) {
    return sketches + (long) place(i) * length;
  }

  /** Planes, key scales, mean key. */
  private int bytesRead(int planes) {
    return planes * at.planeLength() + 2 * TOKENS + 2 * HEAD_DIM;
  }
}
