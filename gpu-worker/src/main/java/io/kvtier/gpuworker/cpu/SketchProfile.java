package io.kvtier.gpuworker.cpu;

import static io.kvtier.page.PageLayout.TOKENS;

import io.kvtier.attention.GroupQuery;
import io.kvtier.attention.HeadOffsets;
import io.kvtier.attention.Kernels;
import io.kvtier.gpuworker.core.MassHistogram;
import io.kvtier.gpuworker.cpu.Workshop.Tools;
import io.kvtier.gpuworker.device.LayerShape;
import java.util.Arrays;

/**
 * Estimates from the sketch how a query's attention is spread over the tokens that are not exact.
 * One call, one thread.
 */
final class SketchProfile {
  private final CpuLayer layer;
  private final LayerShape shape;
  private final Workshop workshop;
  private final Kernels kernels;

  SketchProfile(CpuLayer layer, Workshop workshop) {
    this.layer = layer;
    this.shape = layer.shape();
    this.workshop = workshop;
    this.kernels = workshop.kernels();
  }

  void profile(int head, float[] queries, int at, int position, MassHistogram[] masses) {
    Tools tools = workshop.takeTools(shape);
    int group = shape.group();
    int stride = layer.pages() * TOKENS;
    GroupQuery query = new GroupQuery(group, shape.headDim());
    query.load(queries, at + head * group * shape.headDim(), layer.pages() > 0, kernels);
    float[] scores = new float[group * stride];
    HeadPages pages = layer.head(head);
    int planes = pages.residence().planes();
    HeadOffsets offsets = HeadPages.offsets(shape.layout(), pages.residence());
    for (int page = 0; page < layer.pages(); page++) {
      long sketch = pages.sketchAddress(page);
      kernels.sketchScores(query, offsets, sketch, planes, tools.scratch, tools.scores);
      for (int g = 0; g < group; g++) {
        float raised =
            SketchError.raise(
                SketchError.variance(planes) * query.squareNorm(g), pages.squareScale(page));
        for (int t = 0; t < TOKENS; t++) {
          scores[g * stride + page * TOKENS + t] = tools.scores[g * TOKENS + t] + raised;
        }
      }
    }
    workshop.giveBack(shape, tools);
    for (int g = 0; g < group; g++) {
      float exact = exactLse(head, query, g, position);
      MassHistogram histogram = masses[g];
      histogram.clear();
      fill(histogram, scores, g * stride, Math.min(stride, position + 1), exact);
    }
  }

  /** Log-sum-exp of the exact rows that the query sees. */
  private float exactLse(int head, GroupQuery query, int g, int position) {
    ExactRows exact = layer.exact();
    int paged = layer.pages() * TOKENS;
    int window = Math.clamp(position + 1 - paged, 0, exact.windowCount());
    int sinks = paged > 0 ? exact.sinkCount() : 0;
    int stride = (window + sinks + 15) & -16;
    float[] scores = new float[shape.group() * stride];
    Arrays.fill(scores, Float.NEGATIVE_INFINITY);
    int bytes = shape.exactBytes();
    long sinkKeys = exact.sinkKeys(head);
    long windowKeys = exact.windowKeys(head);
    kernels.rowScores(query, sinkKeys, exact.rowBytes(), bytes, sinks, scores, 0, stride);
    kernels.rowScores(query, windowKeys, exact.rowBytes(), bytes, window, scores, sinks, stride);
    float max = kernels.max(scores, g * stride, stride);
    if (max == Float.NEGATIVE_INFINITY) {
      return max;
    }
    float total = kernels.weigh(scores, g * stride, max, scores, g * stride, stride);
    return max + (float) Math.log(total);
  }

  private void fill(MassHistogram histogram, float[] scores, int at, int to, float exact) {
    int from = layer.exact().sinkCount();
    if (to <= from) {
      return;
    }
    float max = Math.max(exact, kernels.max(scores, at + from, to - from));
    Arrays.fill(scores, at, at + from, Float.NEGATIVE_INFINITY);
    Arrays.fill(scores, at + to, at + ((to + 15) & -16), Float.NEGATIVE_INFINITY);
    double total =
        Math.exp(exact - max) + kernels.weigh(scores, at, max, scores, at, (to + 15) & -16);
    for (int t = from; t < to; t++) {
      histogram.add((float) (scores[at + t] / total));
    }
  }
}
