package io.kvtier.deploy.bench.decode;

import io.kvtier.page.PageLayout;
import java.util.SplittableRandom;

/**
 * Keys, values and queries of Llama-3.1-8B's geometry whose attention is spread as on real traces.
 *
 * <p>Scores of one query are normal; four fifths of a key's variance are common to the 64 tokens of
 * a page. At 128k tokens the best 64 / 128 / 256 of them then hold .93 / .97 / .99 of the mass
 * pooled over a group, and those that a sketch of two planes finds .89 / .95 / .98; measured on
 * real traces were .946 / .967 / .982 and .932 / .958 / .976. Queries of one group have half of
 * their variance in common; queries of adjacent steps a cosine of .9, as large models are reported
 * to have; a hint and its query one of .95. Seeded; one thread.
 */
final class SpreadAttention {
  static final int Q_HEADS = 32;
  static final int KV_HEADS = 8;
  static final int HEAD_DIM = 128;
  static final int KV_ROW = KV_HEADS * HEAD_DIM;
  static final int Q_ROW = Q_HEADS * HEAD_DIM;

  private static final double DEVIATION = 8;
  private static final double IN_COMMON = .5;
  private static final float PAGE_COMMON = .8f;
  static final double STEP_COSINE = .9;
  private static final double HINT_COSINE = .95;
  private static final int GROUP = Q_HEADS / KV_HEADS;

  private final SplittableRandom random;
  private final float[][] queries;
  private final double stepCosine;
  private float[] common = new float[KV_ROW];

  /**
   * Attention of some layers.
   *
   * @param stepCosine of a layer's successive queries
   */
  SpreadAttention(int layers, long seed, double stepCosine) {
    this.stepCosine = stepCosine;
    this.random = new SplittableRandom(seed);
    this.queries = new float[layers][];
    for (int layer = 0; layer < layers; layer++) {
      queries[layer] = freshQuery();
    }
  }

  /** Keys of tokens from a position on, {@code [n][kvHeads][headDim]}, of unit variance. */
  float[] keys(int position, int n) {
    float[] keys = values(n);
    float own = (float) Math.sqrt(1 - PAGE_COMMON);
    for (int t = 0; t < n; t++) {
      if ((position + t) % PageLayout.TOKENS == 0) {
        common = values(1);
      }
      for (int i = 0; i < KV_ROW; i++) {
        int at = t * KV_ROW + i;
        keys[at] = own * keys[at] + (float) Math.sqrt(PAGE_COMMON) * common[i];
      }
    }
    return keys;
  }

  /** {@code [n][kvHeads][headDim]} of unit variance. */
  float[] values(int n) {
    float[] rows = new float[n * KV_ROW];
    for (int i = 0; i < rows.length; i++) {
      // Sums of four uniform numbers are near enough to normal, and made much sooner.
      long bits = random.nextLong();
      int sum =
          (int) (bits & 0xFFFF)
              + (int) (bits >>> 16 & 0xFFFF)
              + (int) (bits >>> 32 & 0xFFFF)
              + (int) (bits >>> 48);
      rows[i] = (sum - 131070) * (1.732f / 65536);
    }
    return rows;
  }

  /** A layer's next query, {@code [qHeads][headDim]}. */
  float[] nextQuery(int layer) {
    queries[layer] = mixed(queries[layer], stepCosine);
    return queries[layer].clone();
  }

  /** A prediction of a query. */
  float[] near(float[] query) {
    return mixed(query, HINT_COSINE);
  }

  private float[] mixed(float[] query, double cosine) {
    float[] fresh = freshQuery();
    for (int i = 0; i < fresh.length; i++) {
      fresh[i] = (float) (cosine * query[i] + Math.sqrt(1 - cosine * cosine) * fresh[i]);
    }
    return fresh;
  }

  /** A score's deviation is the query's element's, since scores are divided by √headDim. */
  private float[] freshQuery() {
    float[] query = new float[Q_ROW];
    for (int head = 0; head < KV_HEADS; head++) {
      for (int d = 0; d < HEAD_DIM; d++) {
        double common = Math.sqrt(IN_COMMON) * random.nextGaussian();
        for (int g = 0; g < GROUP; g++) {
          double own = Math.sqrt(1 - IN_COMMON) * random.nextGaussian();
          query[(head * GROUP + g) * HEAD_DIM + d] = (float) (DEVIATION * (common + own));
        }
      }
    }
    return query;
  }
}
