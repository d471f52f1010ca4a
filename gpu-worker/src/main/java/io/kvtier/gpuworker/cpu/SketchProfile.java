package io.kvtier.gpuworker.cpu;

import static io.kvtier.page.PageLayout.TOKENS;

import io.kvtier.codec.Rotation;
import io.kvtier.gpuworker.core.MassHistogram;
import io.kvtier.gpuworker.device.LayerShape;

/**
 * Estimates from the sketch how a query's attention is spread over the tokens that are not exact.
 * One thread.
 */
final class SketchProfile {
  private final CpuLayer layer;
  private final LayerShape shape;
  private final SketchScan scan;
  private final GroupQuery query;
  private final float[] scores;
  private final float[] keys;
  private final float[] values;

  SketchProfile(CpuLayer layer) {
    this.layer = layer;
    this.shape = layer.shape();
    this.scan = new SketchScan(layer);
    this.query = new GroupQuery(shape, new Rotation(shape.headDim()));
    this.scores = new float[shape.group() * layer.pages() * TOKENS];
    this.keys = new float[shape.headDim()];
    this.values = new float[shape.headDim()];
  }

  void profile(float[] queries, int at, int position, MassHistogram[] masses) {
    int group = shape.group();
    int paged = layer.pages() * TOKENS;
    for (int head = 0; head < shape.kvHeads(); head++) {
      query.load(queries, at + head * group * shape.headDim());
      scorePages(head, paged);
      for (int g = 0; g < group; g++) {
        MassHistogram histogram = masses[head * group + g];
        histogram.clear();
        fill(histogram, g, head, paged, position);
      }
    }
  }

  private void scorePages(int head, int paged) {
    int base = head * layer.slots().sketchStride;
    for (int page = 0; page < layer.pages(); page++) {
      scan.loadSketch(layer.sketch(page), base);
      for (int g = 0; g < shape.group(); g++) {
        int queryAt = g * shape.headDim();
        float mean =
            scan.meanDot(query.plain, queryAt, layer.sketch(page), base + layer.slots().keyMeanAt);
        scan.score(query.rotated, queryAt, mean, scores, g * paged + page * TOKENS);
      }
    }
  }

  private void fill(MassHistogram histogram, int g, int head, int paged, int position) {
    int from = layer.exact().sinkCount();
    int to = Math.min(paged, position + 1);
    double max = Double.NEGATIVE_INFINITY;
    for (int t = from; t < to; t++) {
      max = Math.max(max, scores[g * paged + t]);
    }
    int windowRows = Math.min(layer.exact().windowCount(), position + 1 - paged);
    double[] exactScores = new double[Math.max(0, windowRows) + (paged > 0 ? from : 0)];
    int n = 0;
    for (int row = 0; row < windowRows; row++) {
      layer.exact().readWindow(row, head, keys, values, 0);
      exactScores[n++] = dot(g);
    }
    for (int row = 0; n < exactScores.length; row++) {
      layer.exact().readSink(row, head, keys, values, 0);
      exactScores[n++] = dot(g);
    }
    double total = 0;
    for (double score : exactScores) {
      max = Math.max(max, score);
    }
    for (double score : exactScores) {
      total += Math.exp(score - max);
    }
    for (int t = from; t < to; t++) {
      total += Math.exp(scores[g * paged + t] - max);
    }
    for (int t = from; t < to; t++) {
      histogram.add((float) (Math.exp(scores[g * paged + t] - max) / total));
    }
  }

  private double dot(int g) {
    double dot = 0;
    for (int i = 0; i < shape.headDim(); i++) {
      dot += query.plain[g * shape.headDim() + i] * keys[i];
    }
    return dot;
  }
}
