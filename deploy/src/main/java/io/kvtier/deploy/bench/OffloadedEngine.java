package io.kvtier.deploy.bench;

import com.sun.management.OperatingSystemMXBean;
import io.kvtier.client.DecodeStream;
import io.kvtier.client.KvSession;
import io.kvtier.client.KvtierClient;
import io.kvtier.client.PrefillStream;
import io.kvtier.client.SessionOptions;
import io.kvtier.deploy.cases.CaseGenerator;
import io.kvtier.deploy.cases.Task;
import io.kvtier.deploy.demo.PromptStream;
import io.kvtier.deploy.engine.AttentionBackend;
import io.kvtier.deploy.engine.Decoder;
import io.kvtier.deploy.engine.FullKvCache;
import io.kvtier.deploy.engine.LlamaConfig;
import io.kvtier.deploy.engine.LlamaModel;
import io.kvtier.deploy.engine.Prefill;
import io.kvtier.deploy.engine.Tokenizer;
import io.kvtier.v1.Geometry;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.management.ManagementFactory;
import java.nio.file.Path;
import java.util.Optional;
import java.util.SplittableRandom;

/** An engine that serves one prompt again and again, each time from nothing. */
final class OffloadedEngine implements AutoCloseable {
  private static final double NANOS_PER_MS = 1e6;
  private static final int CHUNK = 512;

  private final OperatingSystemMXBean process =
      ManagementFactory.getPlatformMXBean(OperatingSystemMXBean.class);
  private final Decoder decoder;
  private final int[] ids;
  private final int generated;
  private final SessionOptions options;

  /**
   * Of one session, in milliseconds.
   *
   * @param tokens of its prompt
   * @param generated after it
   * @param all from the prompt's tokens to the last generated one
   * @param processor of this process meanwhile, on all its threads
   */
  record Times(int tokens, int generated, double all, double processor) {}

  private OffloadedEngine(Decoder decoder, int[] ids, int generated) {
    this.decoder = decoder;
    this.ids = ids;
    this.generated = generated;
    Geometry geometry = PromptStream.geometry(decoder.model());
    this.options =
        new SessionOptions(
            geometry,
            ids.length + generated,
            0,
            Optional.of(OffloadBenchmark.allResident(geometry)));
  }

  /** The wide model, with a prompt of random tokens. */
  static OffloadedEngine wide(int tokens, int generated) {
    try {
      Decoder decoder = new Decoder(WideModel.load());
      int[] ids = new SplittableRandom(2).ints(tokens, 0, WideModel.VOCAB).toArray();
      return new OffloadedEngine(decoder, ids, generated);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  /**
   * The shipped model, with a prompt of the asked length.
   *
   * @param generated tokens to decode
   */
  static OffloadedEngine shipped(QualitySettings quality, int generated) {
    Path directory =
        quality.model().orElse(Path.of(System.getProperty("kvtier.home", "."), "deploy", "model"));
    try {
      Tokenizer tokenizer =
          Tokenizer.read(directory)
              .orElseThrow(() -> new IOException(directory + " has no tokenizer"));
      int[] ids =
          new CaseGenerator(tokenizer)
              .generate(Task.NEEDLE, quality.context(), quality.seed())
              .contextIds();
      return new OffloadedEngine(new Decoder(LlamaModel.load(directory)), ids, generated);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  Times session(KvtierClient client) {
    long processorNs = process.getProcessCpuTime();
    long startNs = System.nanoTime();
    FullKvCache cache = new FullKvCache(decoder.model().config());
    Prefill prefill = decoder.prefill(cache, ids, PromptStream.QUERY_WINDOW, Prefill.Progress.NONE);
    int first = Decoder.argmax(prefill.logits(), 0, decoder.model().config().vocabSize());
    try (KvSession session = client.open(options)) {
      send(session, cache, prefill);
      try (DecodeStream stream = session.decode()) {
        AttentionBackend backend =
            (layer, position, tokens, queries, keys, values, hint, output) -> {
              var _ = stream.step(layer, position, tokens, queries, keys, values, hint, output);
            };
        int[] made = decoder.greedy(backend, ids.length, new int[] {first}, generated);
        if (made.length != generated) {
          throw new IllegalStateException("%d tokens were generated".formatted(made.length));
        }
      }
      return new Times(
          ids.length,
          generated,
          (System.nanoTime() - startNs) / NANOS_PER_MS,
          (process.getProcessCpuTime() - processorNs) / NANOS_PER_MS);
    }
  }

  private static void send(KvSession session, FullKvCache cache, Prefill prefill) {
    LlamaConfig config = cache.config();
    int tokens = cache.tokens();
    try (PrefillStream stream = session.prefill()) {
      for (int layer = 0; layer < config.layers(); layer++) {
        for (int at = 0; at < tokens; at += CHUNK) {
          int n = Math.min(CHUNK, tokens - at);
          float[] keys = new float[n * config.kvWidth()];
          float[] values = new float[n * config.kvWidth()];
          cache.rows(layer, at, at + n, keys, values);
          stream.chunk(layer, at, n, keys, values);
        }
        stream.queries(layer, prefill.windowTokens(), prefill.windowQueries(layer));
      }
      var _ = stream.finishAhead(tokens);
    }
  }

  @Override
  public void close() {
    decoder.close();
  }
}
