package io.kvtier.gpuworker.cpu;

import io.kvtier.attention.GroupQuery;
import io.kvtier.attention.Kernels;
import io.kvtier.attention.Partial;
import io.kvtier.gpuworker.device.LayerShape;
import java.util.Arrays;

/** Attention of one KV head's group to the rows that are kept exactly. One thread. */
final class ExactAttention {
  private final CpuLayer layer;
  private final LayerShape shape;
  private final Kernels kernels;
  private final int head;
  private final int group;
  private final float[] exactSum;
  private float[] exactScores = new float[0];

  ExactAttention(CpuLayer layer, int head, Kernels kernels) {
    this.layer = layer;
    this.shape = layer.shape();
    this.kernels = kernels;
    this.head = head;
    this.group = shape.group();
    this.exactSum = new float[group * shape.headDim()];
  }

  /** Asks memory for the rows that are kept exactly: they lie a token's rows of all heads apart. */
  void prefetch() {
    ExactRows exact = layer.exact();
    int sinks = layer.pages() > 0 ? exact.sinkCount() : 0;
    prefetch(exact.sinkKeys(head), sinks);
    prefetch(exact.windowKeys(head), exact.windowCount());
    prefetch(exact.sinkValues(head), sinks);
    prefetch(exact.windowValues(head), exact.windowCount());
  }

  private void prefetch(long rows, int count) {
    int bytes = shape.headDim() * shape.exactBytes();
    for (int row = 0; row < count; row++) {
      kernels.prefetch(rows + (long) row * layer.exact().rowBytes(), bytes);
    }
  }

  /** Scores sinks, window and new tokens into one row a query, then adds their values up. */
  void attend(GroupQuery query, NewTokens newTokens, Partial[] partials) {
    ExactRows exact = layer.exact();
    int headDim = shape.headDim();
    int sinks = layer.pages() > 0 ? exact.sinkCount() : 0;
    int rows = sinks + exact.windowCount() + newTokens.count();
    int stride = (rows + 15) & -16;
    if (exactScores.length < group * stride) {
      exactScores = new float[2 * group * stride];
    }
    Arrays.fill(exactScores, 0, group * stride, Float.NEGATIVE_INFINITY);
    int bytes = shape.exactBytes();
    int rowBytes = exact.rowBytes();
    int at = sinks;
    kernels.rowScores(query, exact.sinkKeys(head), rowBytes, bytes, sinks, exactScores, 0, stride);
    kernels.rowScores(
        query,
        exact.windowKeys(head),
        rowBytes,
        bytes,
        exact.windowCount(),
        exactScores,
        at,
        stride);
    at += exact.windowCount();
    kernels.rowScores(
        query,
        newTokens.keys(head),
        newTokens.rowBytes(),
        Float.BYTES,
        newTokens.count(),
        exactScores,
        at,
        stride);
    float[] lse = weighExact(rows, stride);
    Arrays.fill(exactSum, 0);
    float[] w = exactScores;
    kernels.addRows(
        exact.sinkValues(head), rowBytes, bytes, sinks, group, headDim, w, 0, stride, exactSum);
    kernels.addRows(
        exact.windowValues(head),
        rowBytes,
        bytes,
        exact.windowCount(),
        group,
        headDim,
        w,
        sinks,
        stride,
        exactSum);
    kernels.addRows(
        newTokens.values(head),
        newTokens.rowBytes(),
        Float.BYTES,
        newTokens.count(),
        group,
        headDim,
        w,
        at,
        stride,
        exactSum);
    for (int g = 0; g < group; g++) {
      partials[g].merge(exactSum, g * headDim, 1 / lse[group + g], lse[g]);
    }
  }

  /** Turns scores into weights. Returns {@code [group]} log-sum-exps, then as many totals. */
  private float[] weighExact(int rows, int stride) {
    float[] lse = new float[2 * group];
    for (int g = 0; g < group; g++) {
      float max = kernels.max(exactScores, g * stride, rows);
      if (max == Float.NEGATIVE_INFINITY) {
        lse[g] = max;
        lse[group + g] = 1;
        continue;
      }
      float total = kernels.weigh(exactScores, g * stride, max, exactScores, g * stride, stride);
      lse[g] = max + (float) Math.log(total);
      lse[group + g] = total;
    }
    return lse;
  }
}
