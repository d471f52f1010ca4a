package io.kvtier.gpuworker.cpu;

import static io.kvtier.page.PageLayout.TOKENS;

import io.kvtier.codec.Rot4;
import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.VectorSpecies;
import org.agrona.concurrent.UnsafeBuffer;

/**
 * Scores one page of keys for the q heads of one group, in rotated space: q·k = (HDq)·ŷ + q·μ. The
 * page is decoded once for the group, dimension-major, so that the inner loop runs over the 64
 * tokens without a sum across lanes. Holds scratch for one page; one thread.
 */
final class SketchScan {
  private static final VectorSpecies<Float> LANES = FloatVector.SPECIES_PREFERRED;

  private final SlotLayout slots;
  private final int headDim;
  private final float[] levels;
  private final float[] scales = new float[TOKENS];

  SketchScan(CpuLayer layer) {
    this.slots = layer.slots();
    this.headDim = layer.shape().headDim();
    this.levels = new float[headDim * TOKENS];
  }

  /** Decodes the two resident planes of a page and head. */
  void loadSketch(UnsafeBuffer sketch, int base) {
    Rot4.sketchLevels(sketch, base + slots.signAt, sketch, base + slots.coarseAt, headDim, levels);
    loadScales(sketch, base);
  }

  /** Decodes all planes of a page and head. */
  void loadAll(UnsafeBuffer sketch, int base, UnsafeBuffer codes) {
    Rot4.keyLevels(
        sketch, base + slots.signAt, base + slots.coarseAt, codes, slots.fineAt, headDim, levels);
    loadScales(sketch, base);
  }

  private void loadScales(UnsafeBuffer sketch, int base) {
    for (int t = 0; t < TOKENS; t++) {
      scales[t] = Rot4.half(sketch, base + slots.keyScalesAt, t);
    }
  }

  /**
   * Scores the page that was loaded last.
   *
   * @param rotated {@code [headDim]} from {@code at} on: the query, divided by √headDim and rotated
   * @param meanScore the query's score with the page's mean key
   * @param scores receives 64 scores from {@code scoresAt} on
   */
  void score(float[] rotated, int at, float meanScore, float[] scores, int scoresAt) {
    for (int t = 0; t < TOKENS; t += LANES.length()) {
      FloatVector sum = FloatVector.zero(LANES);
      for (int i = 0; i < headDim; i++) {
        FloatVector level = FloatVector.fromArray(LANES, levels, i * TOKENS + t);
        sum = level.fma(FloatVector.broadcast(LANES, rotated[at + i]), sum);
      }
      sum.fma(FloatVector.fromArray(LANES, scales, t), FloatVector.broadcast(LANES, meanScore))
          .intoArray(scores, scoresAt + t);
    }
  }

  /** The inner product of a vector with an fp16 mean in a sketch. */
  float meanDot(float[] vector, int at, UnsafeBuffer sketch, int meanAt) {
    float dot = 0;
    for (int i = 0; i < headDim; i++) {
      dot += vector[at + i] * Rot4.half(sketch, meanAt, i);
    }
    return dot;
  }
}
