package io.kvtier.deploy.bench;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.cachetier.CacheTierConfig;
import io.kvtier.client.KvSession;
import io.kvtier.client.KvtierClient;
import io.kvtier.client.SessionOptions;
import io.kvtier.coordinator.CoordinatorConfig;
import io.kvtier.deploy.cases.CaseGenerator;
import io.kvtier.deploy.cases.Task;
import io.kvtier.deploy.demo.PromptStream;
import io.kvtier.deploy.engine.Decoder;
import io.kvtier.deploy.engine.FullKvCache;
import io.kvtier.deploy.engine.LlamaModel;
import io.kvtier.deploy.engine.Prefill;
import io.kvtier.deploy.engine.Tokenizer;
import io.kvtier.deploy.service.AllInOne;
import io.kvtier.rpc.EndpointConfig;
import io.kvtier.v1.Geometry;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;
import java.util.logging.Level;
import java.util.logging.Logger;
import java.util.stream.IntStream;

/**
 * What a stored prompt saves: opening a session with it beside prefilling it, the look-up, and a
 * fork. All services in this process, the shipped model's own text.
 */
public final class PrefixBenchmark implements Benchmark {
  private static final long MEMORY = 4L << 30;

  /** Not counted: a service's code is compiled once it has served a while. */
  private static final int WARMUP_ROUNDS = 8;

  private static final int ROUNDS = 15;
  private static final long STORED_WITHIN_NS = Duration.ofSeconds(10).toNanos();
  private static final double NANOS_PER_MS = 1e6;

  /** Held, since a logger that nobody holds forgets its level. */
  private static final Logger SERVICES_LOG = Logger.getLogger("io.kvtier");

  @Override
  public String name() {
    return "prefix";
  }

  @Override
  public String description() {
    return "opening a session whose prompt is stored, beside prefilling it; look-up and fork";
  }

  @Override
  public String command() {
    return "./kvtier bench prefix --context 32k";
  }

  @Override
  public List<BenchRow> run(BenchSettings settings, Progress progress) {
    QualitySettings quality = settings.quality();
    Path directory =
        quality.model().orElse(Path.of(System.getProperty("kvtier.home", "."), "deploy", "model"));
    SERVICES_LOG.setLevel(Level.WARNING);
    CacheTierConfig tier = new CacheTierConfig(EndpointConfig.loopback(), MEMORY, Optional.empty());
    try (Decoder decoder = new Decoder(LlamaModel.load(directory));
        AllInOne services = AllInOne.start(CoordinatorConfig.defaults(), tier, MEMORY);
        KvtierClient client = KvtierClient.connect(services.coordinator().target())) {
      Tokenizer tokenizer =
          Tokenizer.read(directory)
              .orElseThrow(() -> new IOException(directory + " has no tokenizer"));
      int[] ids =
          new CaseGenerator(tokenizer)
              .generate(Task.NEEDLE, quality.context(), quality.seed())
              .contextIds();
      return new Run(decoder, services, client, ids, progress).rows();
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  /** One run over one prompt. */
  private final class Run {
    private final AllInOne services;
    private final KvtierClient client;
    private final Progress progress;
    private final int[] ids;
    private final Geometry geometry;
    private final SessionOptions options;
    private final FullKvCache cache;
    private final Prefill prefill;
    private final double prefillMs;
    private final List<Double> opens = new ArrayList<>();
    private final List<Double> opensAndTails = new ArrayList<>();
    private final List<Double> lookups = new ArrayList<>();
    private final List<Double> forks = new ArrayList<>();
    private long forkBytes;
    private int reused;

    Run(Decoder decoder, AllInOne services, KvtierClient client, int[] ids, Progress progress) {
      this.services = services;
      this.client = client;
      this.progress = progress;
      this.ids = ids;
      this.geometry = PromptStream.geometry(decoder.model());
      List<Integer> boxed = IntStream.of(ids).boxed().toList();
      this.options = SessionOptions.of(geometry, ids.length + 1024).withTokenIds(boxed);
      this.cache = new FullKvCache(decoder.model().config());
      // Once more on the first tokens alone, so that no part of it is compiled while measured.
      int[] warm = Arrays.copyOf(ids, Math.min(ids.length, 2048));
      var _ =
          decoder.prefill(
              new FullKvCache(decoder.model().config()), warm, 32, Prefill.Progress.NONE);
      long startNs = System.nanoTime();
      this.prefill =
          decoder.prefill(
              cache,
              ids,
              PromptStream.QUERY_WINDOW,
              (done, total) -> progress.at(done, total, "prefill of " + ids.length));
      this.prefillMs = (System.nanoTime() - startNs) / NANOS_PER_MS;
    }

    List<BenchRow> rows() {
      try (KvSession first = client.open(options)) {
        var _ = PromptStream.send(first, cache, prefill);
        awaitStored();
        for (int round = -WARMUP_ROUNDS; round < ROUNDS; round++) {
          progress.at(round + WARMUP_ROUNDS, WARMUP_ROUNDS + ROUNDS, "stored prompt");
          open();
          fork(first);
          lookup();
          if (round < 0) {
            List.of(opens, opensAndTails, lookups, forks).forEach(List::clear);
          }
        }
      }
      String prompt = "of %d tokens".formatted(ids.length);
      return List.of(
          row("open, %d tokens stored / prefill %s".formatted(reused, prompt), opens, "<= .05"),
          row(
              "open, then send the other %d / prefill".formatted(ids.length - reused),
              opensAndTails,
              "<= .05"),
          alone("look a prompt up", lookups, "ms", "<= 5"),
          alone("fork " + prompt, forks, "ms", "<= 20"),
          alone("fork: tier bytes copied", List.of((double) forkBytes), "B", "0"));
    }

    private void awaitStored() {
      long deadlineNs = System.nanoTime() + STORED_WITHIN_NS;
      while (client.lookupPrefix(geometry, options.tokenIds()) < ids.length / 64 * 64 - 128) {
        if (System.nanoTime() > deadlineNs) {
          throw new KvtierException(
              Code.DEADLINE, "the coordinator does not know of the stored prompt within 10 s");
        }
        Thread.onSpinWait();
      }
    }

    private void open() {
      long startNs = System.nanoTime();
      try (KvSession session = client.open(options)) {
        opens.add((System.nanoTime() - startNs) / NANOS_PER_MS);
        reused = session.reusedTokens();
        var _ = PromptStream.send(session, cache, prefill);
        opensAndTails.add((System.nanoTime() - startNs) / NANOS_PER_MS);
      }
    }

    private void fork(KvSession parent) {
      long before = services.tier().tier().bytesUsed();
      long startNs = System.nanoTime();
      try (KvSession fork = parent.fork()) {
        forks.add((System.nanoTime() - startNs) / NANOS_PER_MS);
        forkBytes = Math.max(forkBytes, services.tier().tier().bytesUsed() - before);
        if (fork.reusedTokens() != 0) {
          throw new IllegalStateException("a fork has all of its parent's tokens");
        }
      }
    }

    private void lookup() {
      long startNs = System.nanoTime();
      int found = client.lookupPrefix(geometry, options.tokenIds());
      lookups.add((System.nanoTime() - startNs) / NANOS_PER_MS);
      if (found < reused) {
        throw new IllegalStateException("%d tokens found, %d reused".formatted(found, reused));
      }
    }

    private BenchRow row(String what, List<Double> ours, String goal) {
      double median = median(ours);
      return new BenchRow(what, median, prefillMs, median / prefillMs, "ms", goal, command());
    }

    private BenchRow alone(String what, List<Double> ours, String unit, String goal) {
      return new BenchRow(what, median(ours), Double.NaN, Double.NaN, unit, goal, command());
    }

    private static double median(List<Double> values) {
      return values.stream().sorted().toList().get(values.size() / 2);
    }
  }
}
