package io.kvtier.deploy.bench;

import io.kvtier.KvtierException;
import io.kvtier.attention.Kernels;
import io.kvtier.deploy.bench.peer.GgmlPeer;
import io.kvtier.gpuworker.core.HeadPolicy;
import io.kvtier.gpuworker.cpu.CpuDevice;
import io.kvtier.gpuworker.device.LayerPass;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.function.DoubleSupplier;
import org.jspecify.annotations.Nullable;

/**
 * The kernels of attention on the processor: bare scans on one core, and whole layers of
 * Llama-3.1-8B's geometry on all cores, beside ggml's flash attention where it is asked for.
 */
public final class KernelsBenchmark implements Benchmark {
  /** Layers of memory of their own, gone through in turns so that no cache helps. */
  private static final int LAYERS_APART = 4;

  private static final int MODEL_LAYERS = 32;

  /** TailorKV's published decode latency of a token at 128k, 32 layers (arXiv 2505.19586). */
  private static final double TAILORKV_MS = 82;

  private static final HeadPolicy CHOOSE_1K = HeadPolicy.sparse(1024, 1024, 0);

  @Override
  public String name() {
    return "kernels";
  }

  @Override
  public String description() {
    return "attention over a long context on the processor, against memory and, with --peer ggml,"
        + " ggml's flash attention";
  }

  @Override
  public List<BenchRow> run(BenchSettings settings, Progress progress) {
    String peer = settings.peer().orElse("");
    if (!peer.isEmpty() && !peer.equals("ggml")) {
      throw KvtierException.invalid("no peer of this benchmark is called '%s'; ggml is", peer);
    }
    List<BenchRow> rows = new ArrayList<>(new ScanBenchmark(command()).run(progress));
    if (peer.isEmpty()) {
      rows.addAll(layers(settings.tokens(), null, progress));
    } else {
      progress.at(0, 1, "starting ggml (npm fetches it the first time)");
      try (GgmlPeer ggml =
          GgmlPeer.start(
              Path.of(System.getProperty("kvtier.home", ".")),
              GgmlPeer.defaultInstallDirectory())) {
        rows.addAll(layers(settings.tokens(), ggml, progress));
      }
    }
    return rows;
  }

  private List<BenchRow> layers(int tokens, @Nullable GgmlPeer ggml, Progress progress) {
    List<BenchRow> rows = new ArrayList<>();
    int threads = Runtime.getRuntime().availableProcessors();
    long bytes = LAYERS_APART * BenchLayer.bytes(tokens);
    try (CpuDevice device = new CpuDevice(bytes, threads, Kernels.best())) {
      measureDense(device, tokens, threads, ggml, progress, rows);
      measureSparse(device, tokens, threads, ggml, progress, rows);
    }
    return rows;
  }

  private void measureDense(
      CpuDevice device,
      int tokens,
      int threads,
      @Nullable GgmlPeer ggml,
      Progress progress,
      List<BenchRow> rows) {
    progress.at(0, 1, "filling a dense layer");
    try (BenchLayer layer = new BenchLayer(device, tokens, true, 1)) {
      LayerPass pass = layer.pass(HeadPolicy.DENSE);
      Step dense = new Step(layer, pass);
      String name = "rot4 dense scan, %s".formatted(size(tokens, threads));
      if (ggml == null) {
        double ms = 1e3 * Turns.medianSeconds(dense, progress, name);
        rows.add(new BenchRow(name, ms, Double.NaN, Double.NaN, "ms", "", command()));
        return;
      }
      compare(name, dense, ggml, GgmlPeer.Dtype.F16, tokens, threads, "<= 1/4", progress, rows);
      compare(name, dense, ggml, GgmlPeer.Dtype.Q8_0, tokens, threads, "<= 1/6", progress, rows);
      compare(name, dense, ggml, GgmlPeer.Dtype.Q4_0, tokens, threads, "<= 1/10", progress, rows);
    }
  }

  private void measureSparse(
      CpuDevice device,
      int tokens,
      int threads,
      @Nullable GgmlPeer ggml,
      Progress progress,
      List<BenchRow> rows) {
    List<BenchLayer> layers = new ArrayList<>();
    try {
      List<Step> steps = new ArrayList<>();
      for (int i = 0; i < LAYERS_APART; i++) {
        progress.at(i, LAYERS_APART, "filling sparse layers");
        BenchLayer layer = new BenchLayer(device, tokens, false, 2 + i);
        layers.add(layer);
        steps.add(new Step(layer, layer.pass(CHOOSE_1K)));
      }
      Turning sparse = new Turning(steps);
      String name = "sparse step, 1k tokens a head, %s".formatted(size(tokens, threads));
      if (ggml != null) {
        compare(name, sparse, ggml, GgmlPeer.Dtype.F16, tokens, threads, "<= 1/20", progress, rows);
      }
      double ms = 1e3 * MODEL_LAYERS * Turns.medianSeconds(sparse, progress, name);
      rows.add(
          new BenchRow(
              "%d x %s / TailorKV's published token".formatted(MODEL_LAYERS, name),
              ms,
              TAILORKV_MS,
              ms / TAILORKV_MS,
              "ms",
              "<= 1",
              command()));
    } finally {
      layers.forEach(BenchLayer::close);
    }
  }

  private void compare(
      String name,
      Runnable ours,
      GgmlPeer ggml,
      GgmlPeer.Dtype dtype,
      int tokens,
      int threads,
      String goal,
      Progress progress,
      List<BenchRow> rows) {
    progress.at(0, 1, "preparing ggml " + dtype);
    ggml.prepare(
        dtype, tokens, BenchLayer.Q_HEADS, BenchLayer.KV_HEADS, BenchLayer.HEAD_DIM, threads);
    double[] seconds =
        Turns.medianSeconds(ours, (DoubleSupplier) () -> ggml.secondsPerRun(1), progress, name);
    ggml.release();
    rows.add(
        new BenchRow(
            name + " / ggml " + dtype.name().toLowerCase(Locale.ROOT),
            seconds[0] * 1e3,
            seconds[1] * 1e3,
            seconds[0] / seconds[1],
            "ms",
            goal,
            command() + " --peer ggml"));
  }

  private static String size(int tokens, int threads) {
    return "%dk tokens, %d threads".formatted(tokens >> 10, threads);
  }

  /** One query of every head over one layer. */
  private static final class Step implements Runnable {
    private final BenchLayer layer;
    private final LayerPass pass;
    private final float[] queries = BenchLayer.queries(9);
    private final float[] output = new float[BenchLayer.Q_HEADS * BenchLayer.HEAD_DIM];
    private final float[] lse = new float[BenchLayer.Q_HEADS];

    Step(BenchLayer layer, LayerPass pass) {
      this.layer = layer;
      this.pass = pass;
    }

    @Override
    public void run() {
      layer.attend(pass, queries, output, lse);
    }
  }

  /** The next of several steps each time. */
  private static final class Turning implements Runnable {
    private final List<Step> steps;
    private int next;

    Turning(List<Step> steps) {
      this.steps = steps;
    }

    @Override
    public void run() {
      steps.get(next++ % steps.size()).run();
    }
  }
}
