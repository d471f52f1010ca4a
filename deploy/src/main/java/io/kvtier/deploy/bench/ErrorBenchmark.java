package io.kvtier.deploy.bench;

import static io.kvtier.page.PageLayout.TOKENS;

import io.kvtier.attention.ReferenceAttention;
import io.kvtier.codec.PageDecoder;
import io.kvtier.codec.PageEncoder;
import io.kvtier.deploy.cases.CaseGenerator;
import io.kvtier.deploy.cases.Task;
import io.kvtier.deploy.engine.Decoder;
import io.kvtier.deploy.engine.FullKvCache;
import io.kvtier.deploy.engine.LlamaConfig;
import io.kvtier.deploy.engine.LlamaModel;
import io.kvtier.deploy.engine.Prefill;
import io.kvtier.deploy.engine.Tokenizer;
import io.kvtier.page.Codec;
import io.kvtier.page.Fingerprint;
import io.kvtier.page.PageIdentity;
import io.kvtier.page.PageLayout;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import org.agrona.concurrent.UnsafeBuffer;

/**
 * What each codec does to the output of attention: the shipped model reads a context, its keys and
 * values go through pages and back, and its last queries attend to both. The error is |o - o'| /
 * |o| of a q head's output, averaged over queries, heads and layers.
 */
public final class ErrorBenchmark implements Benchmark {
  private static final int CONTEXT = 4096;
  private static final int QUERIES = 64;
  private static final long SEED = 7;

  @Override
  public String name() {
    return "error";
  }

  @Override
  public String description() {
    return "error of the attention output by codec, on the shipped model's keys and values";
  }

  @Override
  public List<BenchRow> run(BenchSettings settings, Progress progress) {
    try {
      return measure(Path.of(System.getProperty("kvtier.home", "."), "deploy", "model"), progress);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  /**
   * Measures every codec.
   *
   * @param directory of the model
   */
  public List<BenchRow> measure(Path directory, Progress progress) throws IOException {
    LlamaModel model = LlamaModel.load(directory);
    Tokenizer tokenizer =
        Tokenizer.read(directory)
            .orElseThrow(() -> new IOException(directory + " has no tokenizer"));
    int[] ids = new CaseGenerator(tokenizer).generate(Task.MULTIKEY, CONTEXT, SEED).contextIds();
    LlamaConfig config = model.config();
    FullKvCache cache = new FullKvCache(config);
    List<BenchRow> rows = new ArrayList<>();
    try (Decoder decoder = new Decoder(model)) {
      Prefill prefill =
          decoder.prefill(
              cache, ids, QUERIES, (done, of) -> progress.at(done, of, "reading a context"));
      int done = 0;
      for (Codec codec : Codec.values()) {
        progress.at(done++, Codec.values().length, codec.name().toLowerCase(Locale.ROOT));
        rows.add(row(codec, meanError(codec, config, cache, prefill, ids.length)));
      }
    }
    return rows;
  }

  private BenchRow row(Codec codec, double error) {
    String goal =
        switch (codec) {
          case ROT4 -> "<= .075";
          case ROT2 -> "<= .30";
          case AFFINE4 -> "about .082";
          case AFFINE2 -> "about .43";
          default -> "";
        };
    String name = codec.name().toLowerCase(Locale.ROOT) + " keys and values";
    return new BenchRow(
        name, error, Double.NaN, Double.NaN, "|o - o'| / |o|, mean", goal, command());
  }

  private static double meanError(
      Codec codec, LlamaConfig config, FullKvCache cache, Prefill prefill, int tokens) {
    int width = config.kvHeads() * config.headDim();
    float[] keys = new float[tokens * width];
    float[] values = new float[tokens * width];
    double sum = 0;
    int count = 0;
    for (int layer = 0; layer < config.layers(); layer++) {
      cache.rows(layer, 0, tokens, keys, values);
      float[] codedKeys = keys.clone();
      float[] codedValues = values.clone();
      throughPages(codec, config, tokens, codedKeys, codedValues);
      float[] queries = prefill.windowQueries(layer);
      for (int q = 0; q < prefill.windowTokens(); q++) {
        int visible = tokens - prefill.windowTokens() + q + 1;
        for (int head = 0; head < config.group() * config.kvHeads(); head++) {
          int at = (q * config.group() * config.kvHeads() + head) * config.headDim();
          int kvAt = head / config.group() * config.headDim();
          float[] exact = attend(queries, at, keys, values, kvAt, width, visible, config.headDim());
          float[] coded =
              attend(queries, at, codedKeys, codedValues, kvAt, width, visible, config.headDim());
          sum += relativeError(coded, exact);
          count++;
        }
      }
    }
    return sum / count;
  }

  private static float[] attend(
      float[] queries,
      int at,
      float[] keys,
      float[] values,
      int kvAt,
      int width,
      int visible,
      int headDim) {
    float[] output = new float[headDim];
    ReferenceAttention.attend(queries, at, keys, values, kvAt, width, visible, headDim, output, 0);
    return output;
  }

  /** Replaces the rows of all whole pages by what their pages decode to. */
  private static void throughPages(
      Codec codec, LlamaConfig config, int tokens, float[] keys, float[] values) {
    PageLayout layout = new PageLayout(codec, codec, config.kvHeads(), config.headDim());
    PageEncoder encoder = new PageEncoder(layout);
    PageDecoder decoder = new PageDecoder(layout);
    UnsafeBuffer page = new UnsafeBuffer(new byte[layout.pageLength()]);
    int width = config.kvHeads() * config.headDim();
    float[] pageKeys = new float[TOKENS * width];
    float[] pageValues = new float[TOKENS * width];
    for (int first = 0; first + TOKENS <= tokens; first += TOKENS) {
      System.arraycopy(keys, first * width, pageKeys, 0, TOKENS * width);
      System.arraycopy(values, first * width, pageValues, 0, TOKENS * width);
      PageIdentity identity = new PageIdentity(new Fingerprint(1, 1), 0, first, TOKENS);
      encoder.encode(identity, pageKeys, pageValues, page, 0);
      for (int head = 0; head < config.kvHeads(); head++) {
        int at = first * width + head * config.headDim();
        decoder.keys(page, 0, head, TOKENS, keys, at, width);
        decoder.values(page, 0, head, TOKENS, values, at, width);
      }
    }
  }

  private static double relativeError(float[] actual, float[] expected) {
    double difference = 0;
    double norm = 0;
    for (int i = 0; i < expected.length; i++) {
      difference += Math.pow(actual[i] - expected[i], 2);
      norm += Math.pow(expected[i], 2);
    }
    return Math.sqrt(difference / norm);
  }
}
