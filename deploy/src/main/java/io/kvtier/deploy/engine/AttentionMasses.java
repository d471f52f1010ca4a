package io.kvtier.deploy.engine;

import java.util.Arrays;

/**
 * Where one query's attention truly lies: the exact attention mass of every token for every KV
 * head, pooled over the group as a mean of softmaxes. Sums to 1 a head. One thread.
 */
public final class AttentionMasses {
  private final LlamaConfig config;
  private final float[] keys;
  private final float[] values;

  /** For contexts of up to so many tokens. */
  public AttentionMasses(LlamaConfig config, int tokensMax) {
    this.config = config;
    this.keys = new float[tokensMax * config.kvWidth()];
    this.values = new float[tokensMax * config.kvWidth()];
  }

  /**
   * The masses of one layer.
   *
   * @param query {@code [qHeads][headDim]}
   * @return {@code [kvHeads][tokens]}
   */
  public float[][] of(FullKvCache cache, int layer, int tokens, float[] query) {
    cache.rows(layer, 0, tokens, keys, values);
    float[][] masses = new float[config.kvHeads()][];
    for (int head = 0; head < config.kvHeads(); head++) {
      masses[head] =
          pooled(keys, head * config.headDim(), config.kvWidth(), tokens, query, head, config);
    }
    return masses;
  }

  /**
   * The masses of a set of tokens among themselves.
   *
   * @param keys {@code [tokens][headDim]} of one KV head
   */
  public static float[] pooled(
      float[] keys, int tokens, float[] query, int kvHead, LlamaConfig config) {
    return pooled(keys, 0, config.headDim(), tokens, query, kvHead, config);
  }

  private static float[] pooled(
      float[] keys, int at, int stride, int tokens, float[] query, int kvHead, LlamaConfig config) {
    int headDim = config.headDim();
    float[] masses = new float[tokens];
    float[] scores = new float[tokens];
    for (int g = 0; g < config.group(); g++) {
      int queryAt = (kvHead * config.group() + g) * headDim;
      float max = Float.NEGATIVE_INFINITY;
      for (int t = 0; t < tokens; t++) {
        scores[t] = dot(query, queryAt, keys, at + t * stride, headDim);
        max = Math.max(max, scores[t]);
      }
      double total = 0;
      for (int t = 0; t < tokens; t++) {
        scores[t] = (float) Math.exp(scores[t] - max);
        total += scores[t];
      }
      float share = (float) (1 / (total * config.group()));
      for (int t = 0; t < tokens; t++) {
        masses[t] += scores[t] * share;
      }
    }
    return masses;
  }

  private static float dot(float[] query, int at, float[] keys, int keyAt, int headDim) {
    float sum = 0;
    for (int i = 0; i < headDim; i++) {
      sum += query[at + i] * keys[keyAt + i];
    }
    return sum / (float) Math.sqrt(headDim);
  }

  /** The mass of the {@code k} tokens of most mass. */
  public static double largest(float[] masses, int k) {
    float[] sorted = masses.clone();
    Arrays.sort(sorted);
    double sum = 0;
    for (int i = sorted.length - 1; i >= Math.max(0, sorted.length - k); i--) {
      sum += sorted[i];
    }
    return sum;
  }
}
