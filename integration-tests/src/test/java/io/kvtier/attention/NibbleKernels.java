package io.kvtier.attention;

import static io.kvtier.page.PageLayout.TOKENS;
import static jdk.incubator.vector.VectorOperators.LSHR;

import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.IntVector;
import jdk.incubator.vector.VectorSpecies;

/** {@link CodeKernels}' scoring of joined codes, of codes that lie joined in memory. */
final class NibbleKernels {
  private static final VectorSpecies<Float> F = KernelLanes.F;
  private static final int LANES = KernelLanes.LANES;

  private NibbleKernels() {}

  static void scoreOne(GroupQuery query, int g, long codes, float[] scores) {
    float[] q = query.spread;
    int rows = query.headDim() / 2;
    for (int t = 0; t < TOKENS; t += LANES) {
      FloatVector sum = FloatVector.zero(F);
      FloatVector other = sum;
      int qAt = g * query.headDim();
      for (int row = 0; row < rows; row++) {
        IntVector pair = KernelLanes.pair(codes + (long) row * TOKENS + t);
        sum = KernelLanes.levels(pair.and(15)).fma(FloatVector.broadcast(F, q[qAt]), sum);
        other =
            KernelLanes.levels(pair.lanewise(LSHR, 4))
                .fma(FloatVector.broadcast(F, q[qAt + 1]), other);
        qAt += 2;
      }
      sum.add(other).intoArray(scores, g * TOKENS + t);
    }
  }

  static void scoreFour(GroupQuery query, int g, long codes, float[] scores) {
    for (int t = 0; t < TOKENS; t += 2 * LANES) {
      scoreFour(
          query.spread, g * query.headDim(), query.headDim() / 2, codes, t, scores, g * TOKENS + t);
    }
  }

  private static void scoreFour(
      float[] q, int queryAt, int rows, long codes, int token, float[] scores, int at) {
    FloatVector left0 = FloatVector.zero(F);
    FloatVector left1 = left0;
    FloatVector left2 = left0;
    FloatVector left3 = left0;
    FloatVector right0 = left0;
    FloatVector right1 = left0;
    FloatVector right2 = left0;
    FloatVector right3 = left0;
    for (int row = 0; row < rows; row++) {
      int qAt = queryAt + 8 * row;
      long rowAt = codes + (long) row * TOKENS + token;
      IntVector leftPair = KernelLanes.pair(rowAt);
      IntVector rightPair = KernelLanes.pair(rowAt + LANES);
      FloatVector leftLow = KernelLanes.levels(leftPair.and(15));
      FloatVector rightLow = KernelLanes.levels(rightPair.and(15));
      FloatVector weight = FloatVector.broadcast(F, q[qAt]);
      left0 = leftLow.fma(weight, left0);
      right0 = rightLow.fma(weight, right0);
      weight = FloatVector.broadcast(F, q[qAt + 1]);
      left1 = leftLow.fma(weight, left1);
      right1 = rightLow.fma(weight, right1);
      weight = FloatVector.broadcast(F, q[qAt + 2]);
      left2 = leftLow.fma(weight, left2);
      right2 = rightLow.fma(weight, right2);
      weight = FloatVector.broadcast(F, q[qAt + 3]);
      left3 = leftLow.fma(weight, left3);
      right3 = rightLow.fma(weight, right3);
      FloatVector leftHigh = KernelLanes.levels(leftPair.lanewise(LSHR, 4));
      FloatVector rightHigh = KernelLanes.levels(rightPair.lanewise(LSHR, 4));
      weight = FloatVector.broadcast(F, q[qAt + 4]);
      left0 = leftHigh.fma(weight, left0);
      right0 = rightHigh.fma(weight, right0);
      weight = FloatVector.broadcast(F, q[qAt + 5]);
      left1 = leftHigh.fma(weight, left1);
      right1 = rightHigh.fma(weight, right1);
      weight = FloatVector.broadcast(F, q[qAt + 6]);
      left2 = leftHigh.fma(weight, left2);
      right2 = rightHigh.fma(weight, right2);
      weight = FloatVector.broadcast(F, q[qAt + 7]);
      left3 = leftHigh.fma(weight, left3);
      right3 = rightHigh.fma(weight, right3);
    }
    left0.intoArray(scores, at);
    right0.intoArray(scores, at + LANES);
    left1.intoArray(scores, at + TOKENS);
    right1.intoArray(scores, at + TOKENS + LANES);
    left2.intoArray(scores, at + 2 * TOKENS);
    right2.intoArray(scores, at + 2 * TOKENS + LANES);
    left3.intoArray(scores, at + 3 * TOKENS);
    right3.intoArray(scores, at + 3 * TOKENS + LANES);
  }
}
