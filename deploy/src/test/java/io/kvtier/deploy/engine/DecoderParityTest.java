package io.kvtier.deploy.engine;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import java.io.IOException;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Random;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/** Does the fast decoder compute what the equations say? Seeds are printed with every failure. */
class DecoderParityTest {
  /** Logits here are of the order of 1 to 10; fp32 in three layers leaves about 1e-5. */
  private static final double TOLERANCE = 2e-4;

  private static final RandomLlama.Shape PLAIN =
      new RandomLlama.Shape(96, 176, 3, 6, 2, 32, 301, "F32", true, false, 1, "null");

  @TempDir Path directory;

  static Stream<RandomLlama.Shape> shapes() {
    String linear = "{\"type\": \"linear\", \"factor\": 4.0}";
    return Stream.of(
        PLAIN,
        new RandomLlama.Shape(96, 176, 2, 6, 2, 32, 301, "F16", false, false, 3, "null"),
        new RandomLlama.Shape(
            160, 200, 2, 4, 1, 80, 259, "BF16", true, true, 1, RandomLlama.LLAMA3),
        new RandomLlama.Shape(64, 64, 2, 2, 2, 32, 256, "F32", false, true, 2, RandomLlama.LLAMA3),
        new RandomLlama.Shape(40, 24, 1, 4, 4, 10, 130, "F32", true, false, 1, linear));
  }

  @ParameterizedTest
  @MethodSource("shapes")
  void matchesTheScalarDecoder(RandomLlama.Shape shape) throws IOException {
    long seed =
        Long.parseLong(System.getProperty("kvtier.seed", String.valueOf(System.nanoTime())));
    RandomLlama random = new RandomLlama(shape, seed);
    LlamaModel model = LlamaModel.load(random.write(directory));
    int[] ids = ids(130, shape.vocab(), seed);
    double[][] expected = new ScalarLlama(random, ScalarLlama.Pairing.HALVES).logits(ids);
    try (Decoder decoder = new Decoder(model, 2)) {
      for (int length : new int[] {1, 63, 64, 65, 130}) {
        FullKvCache cache = new FullKvCache(model.config());
        int[] prompt = Arrays.copyOf(ids, length);
        float[] logits = decoder.prefill(cache, prompt, 0, Prefill.Progress.NONE).logits();
        assertParity("prefill of " + length, seed, expected[length - 1], logits, 0);
      }
      for (int step : new int[] {1, 5, 63, 64}) {
        FullKvCache cache = new FullKvCache(model.config());
        for (int at = 0; at < ids.length; at += step) {
          int[] next = Arrays.copyOfRange(ids, at, Math.min(ids.length, at + step));
          float[] logits = decoder.stepAll(cache, at, next);
          for (int i = 0; i < next.length; i++) {
            assertParity("step of " + step, seed, expected[at + i], logits, i * shape.vocab());
          }
        }
      }
    }
  }

  @Test
  void wrongRopePairingIsCaught() throws IOException {
    long seed =
        Long.parseLong(System.getProperty("kvtier.seed", String.valueOf(System.nanoTime())));
    RandomLlama random = new RandomLlama(PLAIN, seed);
    LlamaModel model = LlamaModel.load(random.write(directory));
    int[] ids = ids(20, PLAIN.vocab(), seed);
    double[][] wrong = new ScalarLlama(random, ScalarLlama.Pairing.NEIGHBOURS).logits(ids);
    try (Decoder decoder = new Decoder(model, 1)) {
      float[] logits = decoder.stepAll(new FullKvCache(model.config()), 0, ids);
      assertThatThrownBy(() -> assertParity("planted", seed, wrong[19], logits, 19 * PLAIN.vocab()))
          .isInstanceOf(AssertionError.class);
    }
  }

  @Test
  void prefillGoesOnFromACacheAcrossChunks() throws IOException {
    long seed =
        Long.parseLong(System.getProperty("kvtier.seed", String.valueOf(System.nanoTime())));
    LlamaModel model = LlamaModel.load(new RandomLlama(PLAIN, seed).write(directory));
    int[] ids = ids(1100, PLAIN.vocab(), seed);
    try (Decoder one = new Decoder(model, 1);
        Decoder two = new Decoder(model, 2)) {
      FullKvCache whole = new FullKvCache(model.config());
      int[] progress = new int[3];
      int[] calls = new int[1];
      Prefill first =
          one.prefill(whole, ids, 64, (done, total) -> progress[calls[0]++] = done * 10000 + total);
      assertThat(progress).containsExactly(512_1100, 1024_1100, 1100_1100);

      FullKvCache parts = new FullKvCache(model.config());
      two.prefill(parts, Arrays.copyOf(ids, 700), 0, Prefill.Progress.NONE);
      Prefill second =
          two.prefill(parts, Arrays.copyOfRange(ids, 700, 1100), 64, Prefill.Progress.NONE);
      assertThat(second.logits())
          .as("seed %d", seed)
          .containsExactly(first.logits(), within(1e-4f));
      assertThat(second.windowTokens()).isEqualTo(64);
      for (int layer = 0; layer < PLAIN.layers(); layer++) {
        assertThat(second.windowQueries(layer))
            .as("seed %d layer %d", seed, layer)
            .containsExactly(first.windowQueries(layer), within(1e-4f));
      }
      assertThat(parts.tokens()).isEqualTo(1100);
    }
  }

  @Test
  void windowAndHintsAreTheQueriesOfTheModel() throws IOException {
    long seed =
        Long.parseLong(System.getProperty("kvtier.seed", String.valueOf(System.nanoTime())));
    LlamaModel model = LlamaModel.load(new RandomLlama(PLAIN, seed).write(directory));
    int[] ids = ids(40, PLAIN.vocab(), seed);
    Recorder recorder = new Recorder(new FullKvCache(model.config()), PLAIN.layers());
    try (Decoder decoder = new Decoder(model, 2)) {
      Prefill prefill =
          decoder.prefill(new FullKvCache(model.config()), ids, 40, Prefill.Progress.NONE);
      decoder.step(recorder, 0, ids);
      for (int layer = 0; layer < PLAIN.layers(); layer++) {
        assertThat(recorder.queries[layer])
            .as("seed %d layer %d", seed, layer)
            .containsExactly(prefill.windowQueries(layer), within(1e-4f));
        assertThat(recorder.hints[layer])
            .hasSize(layer + 1 < PLAIN.layers() ? 40 * model.config().qWidth() : 0);
      }
      // A prediction, not the query itself, but nearer to it than to nothing.
      assertThat(cosine(recorder.hints[0], recorder.queries[1])).isGreaterThan(0.2);
    }
  }

  @Test
  void greedyFeedsLongPromptsInSteps() throws IOException {
    long seed =
        Long.parseLong(System.getProperty("kvtier.seed", String.valueOf(System.nanoTime())));
    LlamaModel model = LlamaModel.load(new RandomLlama(PLAIN, seed).write(directory));
    int[] ids = ids(130, PLAIN.vocab(), seed);
    try (Decoder decoder = new Decoder(model, 2)) {
      FullKvCache cache = new FullKvCache(model.config());
      int[] generated = decoder.greedy(cache, 0, ids, 4);
      assertThat(cache.tokens()).isEqualTo(133);
      FullKvCache other = new FullKvCache(model.config());
      float[] logits = decoder.prefill(other, ids, 0, Prefill.Progress.NONE).logits();
      for (int i = 0; i < 4; i++) {
        assertThat(generated[i])
            .as("seed %d", seed)
            .isEqualTo(Decoder.argmax(logits, 0, PLAIN.vocab()));
        logits = decoder.step(other, 130 + i, new int[] {generated[i]});
      }
    }
  }

  @Test
  void refusesWhatItCannotRun() throws IOException {
    LlamaModel model = LlamaModel.load(new RandomLlama(PLAIN, 1).write(directory));
    FullKvCache cache = new FullKvCache(model.config());
    try (Decoder decoder = new Decoder(model, 1)) {
      assertThatThrownBy(() -> decoder.step(cache, 0, new int[65])).hasMessageContaining("65");
      assertThatThrownBy(() -> decoder.step(cache, 0, new int[] {301})).hasMessageContaining("301");
      assertThatThrownBy(() -> decoder.step(cache, 3, new int[] {1}))
          .hasMessageContaining("layer 0 holds 0 tokens, cannot append at position 3");
      assertThatThrownBy(() -> decoder.prefill(cache, new int[1], 65, Prefill.Progress.NONE))
          .hasMessageContaining("65");
    }
  }

  private static void assertParity(
      String what, long seed, double[] expected, float[] logits, int at) {
    double largest = Arrays.stream(expected).map(Math::abs).max().orElse(0);
    for (int i = 0; i < expected.length; i++) {
      assertThat((double) logits[at + i])
          .as("%s, seed %d (replay with -Dkvtier.seed), logit %d", what, seed, i)
          .isEqualTo(expected[i], within(TOLERANCE * Math.max(1, largest)));
    }
  }

  private static int[] ids(int count, int vocab, long seed) {
    return new Random(seed + 1).ints(count, 0, vocab).toArray();
  }

  private static double cosine(float[] a, float[] b) {
    double ab = 0;
    double aa = 0;
    double bb = 0;
    for (int i = 0; i < a.length; i++) {
      ab += (double) a[i] * b[i];
      aa += (double) a[i] * a[i];
      bb += (double) b[i] * b[i];
    }
    return ab / Math.sqrt(aa * bb);
  }

  private static final class Recorder implements AttentionBackend {
    private final AttentionBackend behind;
    final float[][] queries;
    final float[][] hints;

    Recorder(AttentionBackend behind, int layers) {
      this.behind = behind;
      this.queries = new float[layers][];
      this.hints = new float[layers][];
    }

    @Override
    public void attend(
        int layer,
        int position,
        int tokens,
        float[] queries,
        float[] keys,
        float[] values,
        float[] hint,
        float[] output) {
      this.queries[layer] = queries.clone();
      this.hints[layer] = hint.clone();
      behind.attend(layer, position, tokens, queries, keys, values, hint, output);
    }

    @Override
    public boolean wantsHints() {
      return true;
    }
  }
}
