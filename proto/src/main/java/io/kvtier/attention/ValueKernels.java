package io.kvtier.attention;

import static io.kvtier.page.PageLayout.TOKENS;
import static jdk.incubator.vector.VectorOperators.LSHR;

import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.IntVector;
import jdk.incubator.vector.VectorSpecies;

/**
 * Adds values of pages up, lane = dimension: rows of rot4 codes, each decoded once for four
 * queries, and pages' means. The loops over rows are those of {@link ChosenKernels} but for where
 * the rows lie: a page's lie at one distance from each other, which the compiler needs to know:
 * through a list of addresses a page takes half as long again.
 */
final class ValueKernels {
  private static final VectorSpecies<Float> F = KernelLanes.F;
  private static final int LANES = KernelLanes.LANES;

  private ValueKernels() {}

  /**
   * {@code scaled[g][t] = weights[g][t] x scales[t]}.
   *
   * @param scales address of {@code [64]} fp16
   */
  static void scaleWeights(float[] weights, int group, long scales, float[] scaled) {
    for (int t = 0; t < TOKENS; t += LANES) {
      FloatVector scale = KernelLanes.halves(scales + 2L * t);
      for (int g = 0; g < group; g++) {
        FloatVector.fromArray(F, weights, g * TOKENS + t)
            .mul(scale)
            .intoArray(scaled, g * TOKENS + t);
      }
    }
  }

  /**
   * Adds rows {@code from} to {@code to} of value codes to the accumulator of query {@code g}. A
   * row's last, half chunk is read with what follows it; what that adds lies beyond the dimensions.
   */
  static void addOne(
      long codes, int headDim, int from, int to, float[] scaled, int g, float[] sums) {
    int width = Scratch.width(headDim);
    long rowBytes = headDim / 2;
    for (int chunk = 0; chunk < headDim; chunk += 32) {
      for (int lane = 0; lane < 16; lane += LANES) {
        int at = g * width + chunk + lane;
        FloatVector low = FloatVector.fromArray(F, sums, at);
        FloatVector high = FloatVector.fromArray(F, sums, at + 16);
        long row = codes + from * rowBytes + chunk / 2 + lane;
        for (int t = from; t < to; t++) {
          IntVector pair = KernelLanes.pair(row);
          FloatVector weight = FloatVector.broadcast(F, scaled[g * TOKENS + t]);
          low = KernelLanes.levels(pair.and(15)).fma(weight, low);
          high = KernelLanes.levels(pair.lanewise(LSHR, 4)).fma(weight, high);
          row += rowBytes;
        }
        low.intoArray(sums, at);
        high.intoArray(sums, at + 16);
      }
    }
  }

  /**
   * As {@link #addOne} for queries {@code g} to {@code g + 3}; two chunks at once where there are.
   */
  static void addFour(
      long codes, int headDim, int from, int to, float[] scaled, int g, float[] sums) {
    int width = Scratch.width(headDim);
    int chunk = 0;
    // Sixteen sums and what they are made of need the 32 registers that 512-bit machines have.
    for (; LANES == 16 && chunk <= headDim - 64; chunk += 64) {
      long row = codes + chunk / 2;
      addFourTwice(row, headDim / 2, from, to, scaled, g, sums, g * width + chunk, width);
    }
    for (; chunk < headDim; chunk += 32) {
      for (int lane = 0; lane < 16; lane += LANES) {
        long row = codes + chunk / 2 + lane;
        int at = g * width + chunk + lane;
        addFourOnce(row, headDim / 2, from, to, scaled, g, sums, at, width);
      }
    }
  }

  private static void addFourOnce(
      long codes,
      long rowBytes,
      int from,
      int to,
      float[] scaled,
      int g,
      float[] sums,
      int at,
      int width) {
    FloatVector low0 = FloatVector.fromArray(F, sums, at);
    FloatVector low1 = FloatVector.fromArray(F, sums, at + width);
    FloatVector low2 = FloatVector.fromArray(F, sums, at + 2 * width);
    FloatVector low3 = FloatVector.fromArray(F, sums, at + 3 * width);
    FloatVector high0 = FloatVector.fromArray(F, sums, at + 16);
    FloatVector high1 = FloatVector.fromArray(F, sums, at + width + 16);
    FloatVector high2 = FloatVector.fromArray(F, sums, at + 2 * width + 16);
    FloatVector high3 = FloatVector.fromArray(F, sums, at + 3 * width + 16);
    int weightsAt = g * TOKENS;
    for (int t = from; t < to; t++) {
      long row = codes + t * rowBytes;
      IntVector pair = KernelLanes.pair(row);
      FloatVector low = KernelLanes.levels(pair.and(15));
      FloatVector high = KernelLanes.levels(pair.lanewise(LSHR, 4));
      FloatVector weight = FloatVector.broadcast(F, scaled[weightsAt + t]);
      low0 = low.fma(weight, low0);
      high0 = high.fma(weight, high0);
      weight = FloatVector.broadcast(F, scaled[weightsAt + TOKENS + t]);
      low1 = low.fma(weight, low1);
      high1 = high.fma(weight, high1);
      weight = FloatVector.broadcast(F, scaled[weightsAt + 2 * TOKENS + t]);
      low2 = low.fma(weight, low2);
      high2 = high.fma(weight, high2);
      weight = FloatVector.broadcast(F, scaled[weightsAt + 3 * TOKENS + t]);
      low3 = low.fma(weight, low3);
      high3 = high.fma(weight, high3);
    }
    low0.intoArray(sums, at);
    low1.intoArray(sums, at + width);
    low2.intoArray(sums, at + 2 * width);
    low3.intoArray(sums, at + 3 * width);
    high0.intoArray(sums, at + 16);
    high1.intoArray(sums, at + width + 16);
    high2.intoArray(sums, at + 2 * width + 16);
    high3.intoArray(sums, at + 3 * width + 16);
  }

  private static void addFourTwice(
      long codes,
      long rowBytes,
      int from,
      int to,
      float[] scaled,
      int g,
      float[] sums,
      int at,
      int width) {
    FloatVector low0 = FloatVector.fromArray(F, sums, at);
    FloatVector low1 = FloatVector.fromArray(F, sums, at + width);
    FloatVector low2 = FloatVector.fromArray(F, sums, at + 2 * width);
    FloatVector low3 = FloatVector.fromArray(F, sums, at + 3 * width);
    FloatVector high0 = FloatVector.fromArray(F, sums, at + 16);
    FloatVector high1 = FloatVector.fromArray(F, sums, at + width + 16);
    FloatVector high2 = FloatVector.fromArray(F, sums, at + 2 * width + 16);
    FloatVector high3 = FloatVector.fromArray(F, sums, at + 3 * width + 16);
    FloatVector nextLow0 = FloatVector.fromArray(F, sums, at + 32);
    FloatVector nextLow1 = FloatVector.fromArray(F, sums, at + width + 32);
    FloatVector nextLow2 = FloatVector.fromArray(F, sums, at + 2 * width + 32);
    FloatVector nextLow3 = FloatVector.fromArray(F, sums, at + 3 * width + 32);
    FloatVector nextHigh0 = FloatVector.fromArray(F, sums, at + 48);
    FloatVector nextHigh1 = FloatVector.fromArray(F, sums, at + width + 48);
    FloatVector nextHigh2 = FloatVector.fromArray(F, sums, at + 2 * width + 48);
    FloatVector nextHigh3 = FloatVector.fromArray(F, sums, at + 3 * width + 48);
    int weightsAt = g * TOKENS;
    for (int t = from; t < to; t++) {
      long row = codes + t * rowBytes;
      IntVector pair = KernelLanes.pair(row);
      FloatVector low = KernelLanes.levels(pair.and(15));
      FloatVector high = KernelLanes.levels(pair.lanewise(LSHR, 4));
      IntVector next = KernelLanes.pair(row + 16);
      FloatVector nextLow = KernelLanes.levels(next.and(15));
      FloatVector nextHigh = KernelLanes.levels(next.lanewise(LSHR, 4));
      FloatVector weight = FloatVector.broadcast(F, scaled[weightsAt + t]);
      low0 = low.fma(weight, low0);
      high0 = high.fma(weight, high0);
      nextLow0 = nextLow.fma(weight, nextLow0);
      nextHigh0 = nextHigh.fma(weight, nextHigh0);
      weight = FloatVector.broadcast(F, scaled[weightsAt + TOKENS + t]);
      low1 = low.fma(weight, low1);
      high1 = high.fma(weight, high1);
      nextLow1 = nextLow.fma(weight, nextLow1);
      nextHigh1 = nextHigh.fma(weight, nextHigh1);
      weight = FloatVector.broadcast(F, scaled[weightsAt + 2 * TOKENS + t]);
      low2 = low.fma(weight, low2);
      high2 = high.fma(weight, high2);
      nextLow2 = nextLow.fma(weight, nextLow2);
      nextHigh2 = nextHigh.fma(weight, nextHigh2);
      weight = FloatVector.broadcast(F, scaled[weightsAt + 3 * TOKENS + t]);
      low3 = low.fma(weight, low3);
      high3 = high.fma(weight, high3);
      nextLow3 = nextLow.fma(weight, nextLow3);
      nextHigh3 = nextHigh.fma(weight, nextHigh3);
    }
    low0.intoArray(sums, at);
    low1.intoArray(sums, at + width);
    low2.intoArray(sums, at + 2 * width);
    low3.intoArray(sums, at + 3 * width);
    high0.intoArray(sums, at + 16);
    high1.intoArray(sums, at + width + 16);
    high2.intoArray(sums, at + 2 * width + 16);
    high3.intoArray(sums, at + 3 * width + 16);
    nextLow0.intoArray(sums, at + 32);
    nextLow1.intoArray(sums, at + width + 32);
    nextLow2.intoArray(sums, at + 2 * width + 32);
    nextLow3.intoArray(sums, at + 3 * width + 32);
    nextHigh0.intoArray(sums, at + 48);
    nextHigh1.intoArray(sums, at + width + 48);
    nextHigh2.intoArray(sums, at + 2 * width + 48);
    nextHigh3.intoArray(sums, at + 3 * width + 48);
  }

  // ---- means

  /** Adds one vector of the pages' means to one query's sum. */
  static void addMeansOne(
      long[] pages,
      int from,
      int to,
      int meanAt,
      float[] weights,
      int weightsAt,
      int group,
      float[] sums,
      int at) {
    FloatVector sum = FloatVector.fromArray(F, sums, at);
    for (int page = from; page < to; page++) {
      FloatVector mean = KernelLanes.halves(pages[page] + meanAt);
      int weight = weightsAt + (page - from) * group;
      sum = mean.fma(FloatVector.broadcast(F, weights[weight]), sum);
    }
    sum.intoArray(sums, at);
  }

  /** As {@link #addMeansFour}, two vectors of the pages' means at once. */
  static void addMeansWide(
      long[] pages,
      int from,
      int to,
      int meanAt,
      float[] weights,
      int weightsAt,
      int group,
      float[] sums,
      int at,
      int headDim) {
    int at1 = at + headDim;
    int at2 = at + 2 * headDim;
    int at3 = at + 3 * headDim;
    FloatVector sum0 = FloatVector.fromArray(F, sums, at);
    FloatVector sum1 = FloatVector.fromArray(F, sums, at1);
    FloatVector sum2 = FloatVector.fromArray(F, sums, at2);
    FloatVector sum3 = FloatVector.fromArray(F, sums, at3);
    FloatVector next0 = FloatVector.fromArray(F, sums, at + LANES);
    FloatVector next1 = FloatVector.fromArray(F, sums, at1 + LANES);
    FloatVector next2 = FloatVector.fromArray(F, sums, at2 + LANES);
    FloatVector next3 = FloatVector.fromArray(F, sums, at3 + LANES);
    int weightAt = weightsAt;
    for (int page = from; page < to; page++) {
      FloatVector mean = KernelLanes.halves(pages[page] + meanAt);
      FloatVector next = KernelLanes.halves(pages[page] + meanAt + 2L * LANES);
      FloatVector weight = FloatVector.broadcast(F, weights[weightAt]);
      sum0 = mean.fma(weight, sum0);
      next0 = next.fma(weight, next0);
      weight = FloatVector.broadcast(F, weights[weightAt + 1]);
      sum1 = mean.fma(weight, sum1);
      next1 = next.fma(weight, next1);
      weight = FloatVector.broadcast(F, weights[weightAt + 2]);
      sum2 = mean.fma(weight, sum2);
      next2 = next.fma(weight, next2);
      weight = FloatVector.broadcast(F, weights[weightAt + 3]);
      sum3 = mean.fma(weight, sum3);
      next3 = next.fma(weight, next3);
      weightAt += group;
    }
    sum0.intoArray(sums, at);
    sum1.intoArray(sums, at1);
    sum2.intoArray(sums, at2);
    sum3.intoArray(sums, at3);
    next0.intoArray(sums, at + LANES);
    next1.intoArray(sums, at1 + LANES);
    next2.intoArray(sums, at2 + LANES);
    next3.intoArray(sums, at3 + LANES);
  }

  /** As {@link #addMeansOne} for four queries. */
  static void addMeansFour(
      long[] pages,
      int from,
      int to,
      int meanAt,
      float[] weights,
      int weightsAt,
      int group,
      float[] sums,
      int at,
      int headDim) {
    FloatVector sum0 = FloatVector.fromArray(F, sums, at);
    FloatVector sum1 = FloatVector.fromArray(F, sums, at + headDim);
    FloatVector sum2 = FloatVector.fromArray(F, sums, at + 2 * headDim);
    FloatVector sum3 = FloatVector.fromArray(F, sums, at + 3 * headDim);
    for (int page = from; page < to; page++) {
      FloatVector mean = KernelLanes.halves(pages[page] + meanAt);
      int weight = weightsAt + (page - from) * group;
      sum0 = mean.fma(FloatVector.broadcast(F, weights[weight]), sum0);
      sum1 = mean.fma(FloatVector.broadcast(F, weights[weight + 1]), sum1);
      sum2 = mean.fma(FloatVector.broadcast(F, weights[weight + 2]), sum2);
      sum3 = mean.fma(FloatVector.broadcast(F, weights[weight + 3]), sum3);
    }
    sum0.intoArray(sums, at);
    sum1.intoArray(sums, at + headDim);
    sum2.intoArray(sums, at + 2 * headDim);
    sum3.intoArray(sums, at + 3 * headDim);
  }
}
