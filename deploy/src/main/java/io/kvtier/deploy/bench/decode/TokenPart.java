package io.kvtier.deploy.bench.decode;

import io.kvtier.client.PagesClient;
import io.kvtier.deploy.bench.BenchRow;
import io.kvtier.deploy.bench.Benchmark.Progress;
import io.kvtier.deploy.bench.TierProcess;
import io.kvtier.gpuworker.session.StepResult;
import io.kvtier.rpc.Closing;
import java.io.IOException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.function.ToDoubleFunction;

/**
 * How long a worker takes for one token's attention at 128k tokens of Llama-3.1-8B's geometry: a
 * {@link LongSession} of some of its layers, one after the other as an engine asks for them, of
 * which the model's are taken to be so many times as many. The tier is a process of its own on this
 * machine, in whose files the worker reads.
 */
final class TokenPart {
  private static final int MODEL_LAYERS = 32;

  /** As many as no cache holds. */
  private static final int LAYERS = 4;

  /** Until then the hot set fills, and the virtual machine still compiles what it runs. */
  private static final int WARM_TOKENS = 300;

  private static final int TOKENS = 40;
  private static final long TIER_BYTES = 2L << 30;

  /** TailorKV's published decode latency of a token at 128k (arXiv 2505.19586). */
  private static final double TAILORKV_MS = 82;

  private final int tokens;
  private final String command;

  TokenPart(int tokens, String command) {
    this.tokens = tokens;
    this.command = command;
  }

  /** One layer's step. */
  private record Step(StepResult result, long ns) {
    double ofAll() {
      return ns;
    }

    double choice() {
      return result.chooseNs();
    }

    double waiting() {
      return result.unhiddenNs();
    }

    /** Exact tokens, rows, the rest, and merging them. */
    double attention() {
      return result.computeNs() - result.chooseNs();
    }

    /** Locks, the new token, and every 64th time a page to encode. */
    double other() {
      return ns - result.computeNs() - result.unhiddenNs();
    }
  }

  List<BenchRow> run(double budget, Progress progress) throws IOException {
    List<Step> steps = new ArrayList<>();
    try (Closing closing = new Closing()) {
      TierProcess process =
          closing.add(TierProcess.start(TierProcess.directory(closing), TIER_BYTES));
      PagesClient tier =
          closing.add(
              new PagesClient(process.target(true), Duration.ofNanos(LongSession.TIMEOUT_NS)));
      LongSession session =
          closing.add(
              new LongSession(LAYERS, tokens, WARM_TOKENS + TOKENS, budget, tier, progress));
      session.decode(WARM_TOKENS, false, progress, (layer, result, ns) -> {});
      session.decode(
          TOKENS, false, progress, (layer, result, ns) -> steps.add(new Step(result, ns)));
    }
    String name =
        "%dk, 8B geometry, 1/%d, tier local: ".formatted(tokens >> 10, Math.round(1 / budget));
    double ms = ms(steps, Step::ofAll);
    List<BenchRow> rows = new ArrayList<>();
    rows.add(
        new BenchRow(
            name + "a token's attention, %d layers / TailorKV's published".formatted(MODEL_LAYERS),
            ms,
            TAILORKV_MS,
            ms / TAILORKV_MS,
            "ms",
            "<= 1: " + (ms <= TAILORKV_MS ? "met" : "missed"),
            command));
    rows.add(part(name + "of it scan and choice", ms(steps, Step::choice)));
    rows.add(part(name + "of it attention and the rest's estimate", ms(steps, Step::attention)));
    rows.add(part(name + "of it waiting for rows", ms(steps, Step::waiting)));
    rows.add(part(name + "of it appending and else", ms(steps, Step::other)));
    return rows;
  }

  /** The median step of a layer, for all layers. */
  private static double ms(List<Step> steps, ToDoubleFunction<Step> of) {
    double[] sorted = steps.stream().mapToDouble(of).toArray();
    Arrays.sort(sorted);
    return sorted[sorted.length / 2] * MODEL_LAYERS / 1e6;
  }

  private BenchRow part(String name, double ms) {
    return new BenchRow(name, ms, Double.NaN, Double.NaN, "ms", "", command);
  }
}
