package io.kvtier.deploy.engine;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import java.util.Arrays;
import java.util.List;
import java.util.OptionalInt;
import java.util.Random;
import org.junit.jupiter.api.Test;

class FullKvCacheTest {
  private static final LlamaConfig CONFIG =
      new LlamaConfig(
          64,
          64,
          2,
          6,
          2,
          20,
          64,
          512,
          1e-5,
          10000,
          new RopeScaling.None(),
          true,
          false,
          false,
          OptionalInt.empty(),
          List.of());
  private static final int DIM = CONFIG.headDim();

  private final long seed = System.nanoTime();
  private final Random random = new Random(seed);
  private final float[] keys = floats(200 * CONFIG.kvWidth(), 1);
  private final float[] values = floats(200 * CONFIG.kvWidth(), 1);

  @Test
  void bothKernelsMatchScalarAttention() {
    FullKvCache cache = new FullKvCache(CONFIG);
    cache.append(1, 0, 200, keys, values);
    for (int count : new int[] {1, 3, 4, 21, 22, 64}) {
      for (float spread : new float[] {0.1f, 1, 40}) {
        float[] queries = floats(count * CONFIG.qWidth(), spread);
        float[] output = new float[queries.length];
        for (int position : new int[] {0, 1, 62, 63, 64, 200 - count}) {
          cache.attendOnly(1, position, count, queries, output);
          for (int token = 0; token < count; token++) {
            check(queries, output, token, position + token + 1, "causal " + count);
          }
        }
        for (int visible : new int[] {1, 63, 64, 65, 200}) {
          cache.attendFirst(1, visible, count, queries, output);
          for (int token = 0; token < count; token++) {
            check(queries, output, token, visible, "first " + visible);
          }
        }
      }
    }
  }

  private void check(float[] queries, float[] output, int token, int visible, String what) {
    for (int head = 0; head < CONFIG.qHeads(); head++) {
      int at = (token * CONFIG.qHeads() + head) * DIM;
      int kv = head / CONFIG.group() * DIM;
      double[] scores = new double[visible];
      for (int j = 0; j < visible; j++) {
        for (int d = 0; d < DIM; d++) {
          scores[j] += (double) queries[at + d] * keys[j * CONFIG.kvWidth() + kv + d];
        }
        scores[j] /= Math.sqrt(DIM);
      }
      double top = Arrays.stream(scores).max().orElseThrow();
      double total = Arrays.stream(scores).map(s -> Math.exp(s - top)).sum();
      for (int d = 0; d < DIM; d++) {
        double expected = 0;
        for (int j = 0; j < visible; j++) {
          expected += Math.exp(scores[j] - top) / total * values[j * CONFIG.kvWidth() + kv + d];
        }
        // Scores reach 200 at the widest spread, where fp32 leaves 1e-5 of the score.
        assertThat((double) output[at + d])
            .as("%s, token %d, head %d, seed %d", what, token, head, seed)
            .isEqualTo(expected, within(5e-4));
      }
    }
  }

  @Test
  void rowsComeBackAsTheyWentIn() {
    FullKvCache cache = new FullKvCache(CONFIG);
    cache.append(0, 0, 130, keys, values);
    float[] k = new float[30 * CONFIG.kvWidth()];
    float[] v = new float[30 * CONFIG.kvWidth()];
    cache.rows(0, 100, 130, k, v);
    int from = 100 * CONFIG.kvWidth();
    assertThat(k).containsExactly(Arrays.copyOfRange(keys, from, from + k.length));
    assertThat(v).containsExactly(Arrays.copyOfRange(values, from, from + v.length));
    assertThatThrownBy(() -> cache.rows(0, 100, 131, k, v)).hasMessageContaining("holds 130");
  }

  @Test
  void forksGoTheirOwnWayAndTruncationForgets() {
    FullKvCache cache = new FullKvCache(CONFIG);
    for (int layer = 0; layer < 2; layer++) {
      cache.append(layer, 0, 100, keys, values);
    }
    FullKvCache fork = cache.fork();
    cache.truncate(10);
    assertThat(cache.tokens()).isEqualTo(10);
    cache.append(0, 10, 5, values, keys);
    assertThat(cache.tokens(0)).isEqualTo(15);
    assertThat(cache.tokens()).isEqualTo(10);
    assertThat(fork.tokens()).isEqualTo(100);
    assertThat(fork.bytes()).isEqualTo(100L * 2 * 2 * 4 * CONFIG.kvWidth());
    float[] k = new float[100 * CONFIG.kvWidth()];
    fork.rows(0, 0, 100, k, new float[k.length]);
    assertThat(k).containsExactly(Arrays.copyOf(keys, k.length));
  }

  @Test
  void refusesGapsAndQueriesBeyondTheEnd() {
    FullKvCache cache = new FullKvCache(CONFIG);
    cache.append(0, 0, 10, keys, values);
    assertThatThrownBy(() -> cache.append(0, 11, 1, keys, values))
        .hasMessageContaining("layer 0 holds 10 tokens, cannot append at position 11");
    float[] queries = new float[4 * CONFIG.qWidth()];
    assertThatThrownBy(() -> cache.attendOnly(0, 8, 4, queries, queries))
        .hasMessageContaining("which holds 10 tokens");
    assertThatThrownBy(() -> cache.attendFirst(0, 0, 1, queries, queries))
        .isInstanceOf(IllegalArgumentException.class);
  }

  @Test
  void powersOfTwoAreWithinTheirStatedError() {
    float[] x = new float[64];
    double worst = 0;
    for (float at = -125.9f; at < 0.0005f; at += 0.00097f * 64) {
      for (int i = 0; i < x.length; i++) {
        x[i] = Math.min(0, at + i * 0.00097f);
      }
      float[] y = x.clone();
      for (int i = 0; i < x.length; i += PanelKernel.SPECIES.length()) {
        TileSoftmax.exp2(y, i);
      }
      for (int i = 0; i < x.length; i++) {
        worst = Math.max(worst, Math.abs(y[i] / Math.pow(2, x[i]) - 1));
      }
    }
    assertThat(worst).isLessThan(1e-7);
  }

  private float[] floats(int count, float spread) {
    float[] out = new float[count];
    for (int i = 0; i < count; i++) {
      out[i] = (float) random.nextGaussian() * spread;
    }
    return out;
  }
}
