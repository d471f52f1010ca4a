package io.kvtier.deploy.plan;

import static io.kvtier.page.PageLayout.TOKENS;

import io.kvtier.deploy.engine.FullKvCache;
import io.kvtier.deploy.engine.LlamaConfig;
import io.kvtier.gpuworker.cpu.SketchError;

/** How far off scores by one key plane are, as a worker measures it, of exact keys. */
final class ScoreError {
  private ScoreError() {}

  /**
   * The standard deviation of the error, over a KV head's whole pages and its group's queries.
   *
   * @param queries {@code [count][qHeads][headDim]} of the layer
   */
  static float of(FullKvCache cache, int layer, int kvHead, float[] queries) {
    LlamaConfig config = cache.config();
    int tokens = cache.tokens() / TOKENS * TOKENS;
    int headDim = config.headDim();
    float[] keys = new float[tokens * config.kvWidth()];
    cache.rows(layer, 0, tokens, keys, new float[keys.length]);
    double keySquares = 0;
    for (int page = 0; page < tokens; page += TOKENS) {
      for (int i = 0; i < headDim; i++) {
        double sum = 0;
        double squares = 0;
        for (int t = page; t < page + TOKENS; t++) {
          double key = keys[t * config.kvWidth() + kvHead * headDim + i];
          sum += key;
          squares += key * key;
        }
        keySquares += squares - sum * sum / TOKENS;
      }
    }
    double querySquares = 0;
    int group = config.group() * headDim;
    for (int at = kvHead * group; at < queries.length; at += config.qWidth()) {
      for (int i = at; i < at + group; i++) {
        querySquares += (double) queries[i] * queries[i];
      }
    }
    int count = queries.length / config.qWidth();
    double query = querySquares / count / config.group() / headDim;
    double key = keySquares / Math.max(1, tokens) / headDim;
    return (float) Math.sqrt(SketchError.variance(1) * query * key);
  }
}
