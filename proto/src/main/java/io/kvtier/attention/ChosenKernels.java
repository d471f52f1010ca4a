package io.kvtier.attention;

import static jdk.incubator.vector.VectorOperators.LSHR;

import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.IntVector;
import jdk.incubator.vector.VectorSpecies;

/** Rows of chosen tokens ({@link RowForm}), wherever they lie. */
final class ChosenKernels {
  private static final VectorSpecies<Float> F = KernelLanes.F;
  private static final int LANES = KernelLanes.LANES;

  private static final ValueLayout.OfShort SHORT =
      ValueLayout.JAVA_SHORT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

  private ChosenKernels() {}

  /** Key codes times query {@code g}, without scale and mean. */
  static void dotsOne(GroupQuery query, int g, long[] rows, int from, int to, float[] dots) {
    int room = Scratch.wordRoom(query.headDim());
    for (int i = from; i < to; i++) {
      FloatVector sum = FloatVector.zero(F);
      for (int j = 0; j < room; j += LANES) {
        IntVector codes = KernelLanes.words(rows[i] + (long) Integer.BYTES * j);
        int at = g * 8 * room + j;
        for (int k = 0; k < 8; k++) {
          FloatVector level = KernelLanes.levels(codes.and(15));
          sum = level.fma(FloatVector.fromArray(F, query.across, at), sum);
          codes = codes.lanewise(LSHR, 4);
          at += room;
        }
      }
      dots[i - from] = KernelLanes.sum(sum);
    }
  }

  /**
   * As {@link #dotsOne} for queries {@code g} to {@code g + 3}.
   *
   * @param lanes receives {@code [to - from][4][lanes]}, still to be added up
   */
  static void dotsFour(GroupQuery query, int g, long[] rows, int from, int to, float[] lanes) {
    float[] q = query.across;
    int room = Scratch.wordRoom(query.headDim());
    int stride = 8 * room;
    int lanesAt = 0;
    for (int i = from; i < to; i++) {
      FloatVector sum0 = FloatVector.zero(F);
      FloatVector sum1 = sum0;
      FloatVector sum2 = sum0;
      FloatVector sum3 = sum0;
      for (int j = 0; j < room; j += LANES) {
        IntVector codes = KernelLanes.words(rows[i] + (long) Integer.BYTES * j);
        int at = g * stride + j;
        for (int k = 0; k < 8; k++) {
          FloatVector level = KernelLanes.levels(codes.and(15));
          sum0 = level.fma(FloatVector.fromArray(F, q, at), sum0);
          sum1 = level.fma(FloatVector.fromArray(F, q, at + stride), sum1);
          sum2 = level.fma(FloatVector.fromArray(F, q, at + 2 * stride), sum2);
          sum3 = level.fma(FloatVector.fromArray(F, q, at + 3 * stride), sum3);
          codes = codes.lanewise(LSHR, 4);
          at += room;
        }
      }
      sum0.intoArray(lanes, lanesAt);
      sum1.intoArray(lanes, lanesAt + LANES);
      sum2.intoArray(lanes, lanesAt + 2 * LANES);
      sum3.intoArray(lanes, lanesAt + 3 * LANES);
      lanesAt += 4 * LANES;
    }
  }

  /**
   * {@code scores[i] = dot x key scale + mean score}.
   *
   * @param dots {@code [to - from][stride]}, from {@code dotsAt} on
   */
  static void scale(
      float[] dots,
      int dotsAt,
      int stride,
      long[] rows,
      int[] positions,
      int from,
      int to,
      RowForm form,
      float[] meanScores,
      int group,
      int g,
      float[] scores,
      int scoresAt) {
    int scaleAt = form.keyScaleAt();
    int at = dotsAt;
    for (int i = from; i < to; i++) {
      float scale = Float.float16ToFloat(OffHeap.ALL.get(SHORT, rows[i] + scaleAt));
      float mean = meanScores[(positions[i] >> 6) * group + g];
      scores[scoresAt + i] = Math.fma(dots[at], scale, mean);
      at += stride;
    }
  }

  static void valueScales(long[] rows, int from, int to, RowForm form, float[] scales) {
    int scaleAt = form.valueScaleAt();
    for (int i = from; i < to; i++) {
      scales[i] = Float.float16ToFloat(OffHeap.ALL.get(SHORT, rows[i] + scaleAt));
    }
  }

  /** Adds weighted value codes, of chunk after chunk of 32 dimensions, for one query. */
  static void addOne(
      long[] rows,
      int from,
      int to,
      int valuesAt,
      int headDim,
      float[] scaled,
      int scaledAt,
      float[] sums,
      int sumsAt) {
    for (int chunk = 0; chunk < headDim; chunk += 32) {
      for (int lane = 0; lane < 16; lane += LANES) {
        int at = sumsAt + chunk + lane;
        FloatVector low = FloatVector.fromArray(F, sums, at);
        FloatVector high = FloatVector.fromArray(F, sums, at + 16);
        int codesAt = valuesAt + chunk / 2 + lane;
        for (int i = from; i < to; i++) {
          IntVector pair = KernelLanes.pair(rows[i] + codesAt);
          FloatVector weight = FloatVector.broadcast(F, scaled[scaledAt + i - from]);
          low = KernelLanes.levels(pair.and(15)).fma(weight, low);
          high = KernelLanes.levels(pair.lanewise(LSHR, 4)).fma(weight, high);
        }
        low.intoArray(sums, at);
        high.intoArray(sums, at + 16);
      }
    }
  }

  /** As {@link #addOne} for four queries: {@code stride} from weights to weights. */
  static void addFour(
      long[] rows,
      int from,
      int to,
      int valuesAt,
      int headDim,
      float[] scaled,
      int scaledAt,
      int stride,
      float[] sums,
      int sumsAt,
      int width) {
    int chunk = 0;
    // Sixteen sums and what they are made of need the 32 registers that 512-bit machines have.
    for (; LANES == 16 && chunk <= headDim - 64; chunk += 64) {
      addFourTwice(
          rows,
          from,
          to,
          valuesAt + chunk / 2,
          scaled,
          scaledAt,
          stride,
          sums,
          sumsAt + chunk,
          width);
    }
    for (; chunk < headDim; chunk += 32) {
      for (int lane = 0; lane < 16; lane += LANES) {
        addFourOnce(
            rows,
            from,
            to,
            valuesAt + chunk / 2 + lane,
            scaled,
            scaledAt,
            stride,
            sums,
            sumsAt + chunk + lane,
            width);
      }
    }
  }

  private static void addFourOnce(
      long[] rows,
      int from,
      int to,
      int codesAt,
      float[] scaled,
      int scaledAt,
      int stride,
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
    for (int i = from; i < to; i++) {
      IntVector pair = KernelLanes.pair(rows[i] + codesAt);
      FloatVector low = KernelLanes.levels(pair.and(15));
      FloatVector high = KernelLanes.levels(pair.lanewise(LSHR, 4));
      int weightAt = scaledAt + i - from;
      FloatVector weight = FloatVector.broadcast(F, scaled[weightAt]);
      low0 = low.fma(weight, low0);
      high0 = high.fma(weight, high0);
      weight = FloatVector.broadcast(F, scaled[weightAt + stride]);
      low1 = low.fma(weight, low1);
      high1 = high.fma(weight, high1);
      weight = FloatVector.broadcast(F, scaled[weightAt + 2 * stride]);
      low2 = low.fma(weight, low2);
      high2 = high.fma(weight, high2);
      weight = FloatVector.broadcast(F, scaled[weightAt + 3 * stride]);
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
      long[] rows,
      int from,
      int to,
      int codesAt,
      float[] scaled,
      int scaledAt,
      int stride,
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
    for (int i = from; i < to; i++) {
      long row = rows[i] + codesAt;
      IntVector pair = KernelLanes.pair(row);
      FloatVector low = KernelLanes.levels(pair.and(15));
      FloatVector high = KernelLanes.levels(pair.lanewise(LSHR, 4));
      IntVector next = KernelLanes.pair(row + 16);
      FloatVector nextLow = KernelLanes.levels(next.and(15));
      FloatVector nextHigh = KernelLanes.levels(next.lanewise(LSHR, 4));
      int weightAt = scaledAt + i - from;
      FloatVector weight = FloatVector.broadcast(F, scaled[weightAt]);
      low0 = low.fma(weight, low0);
      high0 = high.fma(weight, high0);
      nextLow0 = nextLow.fma(weight, nextLow0);
      nextHigh0 = nextHigh.fma(weight, nextHigh0);
      weight = FloatVector.broadcast(F, scaled[weightAt + stride]);
      low1 = low.fma(weight, low1);
      high1 = high.fma(weight, high1);
      nextLow1 = nextLow.fma(weight, nextLow1);
      nextHigh1 = nextHigh.fma(weight, nextHigh1);
      weight = FloatVector.broadcast(F, scaled[weightAt + 2 * stride]);
      low2 = low.fma(weight, low2);
      high2 = high.fma(weight, high2);
      nextLow2 = nextLow.fma(weight, nextLow2);
      nextHigh2 = nextHigh.fma(weight, nextHigh2);
      weight = FloatVector.broadcast(F, scaled[weightAt + 3 * stride]);
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
}
