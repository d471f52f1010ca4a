package io.kvtier.gpuworker.cpu;

import io.kvtier.attention.GroupQuery;
import io.kvtier.attention.Partial;
import io.kvtier.attention.Scratch;
import java.util.Arrays;

/**
 * Running softmax-weighted sums of one group over coded tokens (Milakov and Gimelshein, Online
 * normalizer calculation for softmax, 2018): rotated residuals and plain page means apart, both in
 * units of e^max. One thread.
 */
final class GroupSum {
  private final int headDim;
  private final int width;

  /** {@code [group][width]}: Σ weight x rotated residual. */
  final float[] rotated;

  /** {@code [group][headDim]}: Σ weight x page mean. */
  final float[] means;

  /** {@code [group]}: what the weights are relative to; -∞: nothing has been added. */
  final float[] max;

  /** {@code [group]}: Σ weight. */
  final float[] total;

  GroupSum(int group, int headDim) {
    this.headDim = headDim;
    this.width = Scratch.width(headDim);
    this.rotated = new float[group * width];
    this.means = new float[group * headDim];
    this.max = new float[group];
    this.total = new float[group];
  }

  void clear() {
    Arrays.fill(rotated, 0);
    Arrays.fill(means, 0);
    Arrays.fill(max, Float.NEGATIVE_INFINITY);
    Arrays.fill(total, 0);
  }

  /** Makes room for scores up to {@code score}: what was added so far is scaled down. */
  void raise(int g, float score) {
    if (score > max[g]) {
      if (total[g] > 0) {
        float shrink = (float) Math.exp(max[g] - score);
        total[g] *= shrink;
        scale(rotated, g * width, width, shrink);
        scale(means, g * headDim, headDim, shrink);
      }
      max[g] = score;
    }
  }

  /** Whether a score of any query is above what its weights are relative to. */
  boolean below(float[] scores) {
    for (int g = 0; g < max.length; g++) {
      if (scores[g] > max[g]) {
        return true;
      }
    }
    return false;
  }

  /** Adds the sums of query {@code g} over other tokens. */
  void add(GroupSum other, int g) {
    if (other.total[g] > 0) {
      raise(g, other.max[g]);
      float factor = (float) Math.exp(other.max[g] - max[g]);
      total[g] += other.total[g] * factor;
      add(other.rotated, factor, rotated, g * width, width);
      add(other.means, factor, means, g * headDim, headDim);
    }
  }

  private static void add(float[] x, float factor, float[] sums, int at, int length) {
    for (int i = at; i < at + length; i++) {
      sums[i] += x[i] * factor;
    }
  }

  /** Scales the rotated sum of a query. */
  void scaleRotated(int g, float factor) {
    scale(rotated, g * width, width, factor);
  }

  private static void scale(float[] x, int at, int length, float factor) {
    for (int i = at; i < at + length; i++) {
      x[i] *= factor;
    }
  }

  /**
   * Merges query {@code g}'s sums into a partial, rotated back; they are of no use afterwards.
   *
   * @param output scratch of {@code [headDim]}
   */
  void mergeInto(Partial partial, GroupQuery query, Scratch scratch, int g, float[] output) {
    if (total[g] > 0) {
      scratch.order(rotated, g * width);
      System.arraycopy(rotated, g * width, output, 0, headDim);
      query.rotateBack(output, 0);
      // Divided before it is merged: the same bits as a partial that a tier has made of the pages.
      // What is nothing beside max may have a total whose reciprocal is beyond fp32.
      double share = 1.0 / total[g];
      for (int i = 0; i < headDim; i++) {
        output[i] = (float) ((output[i] + means[g * headDim + i]) * share);
      }
      partial.merge(output, 0, 1, max[g] + (float) Math.log(total[g]));
    }
  }
}
