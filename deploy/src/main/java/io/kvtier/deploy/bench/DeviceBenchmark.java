package io.kvtier.deploy.bench;

import io.kvtier.gpuworker.Devices;
import io.kvtier.gpuworker.core.HeadPolicy;
import io.kvtier.gpuworker.device.AttentionDevice;
import io.kvtier.gpuworker.device.LayerPass;
import io.kvtier.page.Codec;
import io.kvtier.page.PageLayout;
import io.kvtier.page.Residence;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.OptionalLong;
import java.util.stream.IntStream;

/**
 * Steps of one layer of Llama-3.1-8B's geometry on any device, against the time that reading their
 * bytes once takes at the rate at which the device copies within its memory.
 */
public final class DeviceBenchmark implements Benchmark {
  private static final HeadPolicy CHOOSE_1K = HeadPolicy.sparse(1024, 1024, 0);
  private static final int SHORT_TOKENS = 4096;
  private static final int ALMOST_NO_TOKENS = 256;

  private static final int CLOCKED_STEPS = 101;

  /** Devices size what a step writes by what sessions may hold, which is many layers. */
  private static final int LAYERS_WORTH = 16;

  @Override
  public String name() {
    return "device";
  }

  @Override
  public String description() {
    return "one layer's steps on --device, against the rate at which it copies; --roofline computes"
        + " an RTX 3090's limits";
  }

  @Override
  public List<BenchRow> run(BenchSettings settings, Progress progress) {
    int tokens = settings.tokens();
    List<BenchRow> rows = new ArrayList<>();
    try (AttentionDevice device =
        Devices.open(
            settings.device(),
            LAYERS_WORTH * BenchLayer.bytes(Math.max(SHORT_TOKENS, tokens)),
            doing -> progress.at(0, 1, doing))) {
      progress.at(0, 1, "measuring how fast it copies");
      double bandwidth = device.copyBandwidth();
      rows.add(
          row(
              "copying within its memory, GB/s: " + device.name(),
              bandwidth / 1e9,
              Double.NaN,
              "GB/s"));
      for (boolean dense : new boolean[] {true, false}) {
        String what = dense ? "dense" : "sparse, up to 1k tokens a head";
        int longest = Math.max(SHORT_TOKENS, tokens);
        for (int length :
            IntStream.of(ALMOST_NO_TOKENS, SHORT_TOKENS, longest).distinct().toArray()) {
          Step step = step(device, length, dense, progress);
          String name = "%s step, %s".formatted(what, tokens(length));
          if (length > ALMOST_NO_TOKENS) {
            rows.add(limited(name + " / its bytes copied", step.ms(), length, dense, bandwidth));
          }
          if (step.outsideMs() > 0) {
            rows.add(overhead(name, step, length));
          }
        }
      }
    }
    return rows;
  }

  private static String tokens(int count) {
    return count < 1024 ? count + " tokens" : (count >> 10) + "k tokens";
  }

  /** What a step takes, and what of it lies outside kernels; 0 if the device has no clock. */
  private record Step(double ms, double outsideMs) {}

  private static Step step(AttentionDevice device, int tokens, boolean dense, Progress progress) {
    progress.at(0, 1, "filling a layer of %d tokens".formatted(tokens));
    try (BenchLayer layer = new BenchLayer(device, tokens, dense, 1)) {
      LayerPass pass = layer.pass(dense ? HeadPolicy.DENSE : CHOOSE_1K);
      float[] queries = BenchLayer.queries(9);
      float[] output = new float[BenchLayer.Q_HEADS * BenchLayer.HEAD_DIM];
      float[] lse = new float[BenchLayer.Q_HEADS];
      Runnable attend = () -> layer.attend(pass, queries, output, lse);
      double seconds = Turns.medianSeconds(attend, progress, tokens + " tokens");
      double[] outsideNs = new double[CLOCKED_STEPS];
      for (int i = 0; i < CLOCKED_STEPS; i++) {
        long startNs = System.nanoTime();
        attend.run();
        long stepNs = System.nanoTime() - startNs;
        // In turns, since a device whose kernels are timed waits for each of them.
        OptionalLong kernelNs = device.kernelNs(attend);
        outsideNs[i] = kernelNs.isPresent() ? stepNs - kernelNs.getAsLong() : 0;
      }
      Arrays.sort(outsideNs);
      return new Step(1e3 * seconds, outsideNs[CLOCKED_STEPS / 2] / 1e6);
    }
  }

  /** What is left of a step beside its kernels: launches, transfers, waits, the host's part. */
  private BenchRow overhead(String name, Step step, int tokens) {
    return new BenchRow(
        name + ": outside kernels / all of it",
        step.outsideMs(),
        step.ms(),
        step.outsideMs() / step.ms(),
        "ms",
        tokens == SHORT_TOKENS ? "ours <= 1 ms" : "",
        command());
  }

  private BenchRow limited(String name, double ms, int tokens, boolean dense, double bandwidth) {
    PageLayout layout =
        new PageLayout(Codec.ROT4, Codec.ROT4, BenchLayer.KV_HEADS, BenchLayer.HEAD_DIM);
    int sections = Residence.DENSE.sketch() | (dense ? Residence.DENSE.codes(layout) : 0);
    double bytes =
        (double) layout.lengthOf(sections) / PageLayout.TOKENS * tokens * BenchLayer.KV_HEADS;
    return row(name, ms, 1e3 * bytes / bandwidth, "ms");
  }

  private BenchRow row(String name, double ours, double reference, String unit) {
    return new BenchRow(name, ours, reference, ours / reference, unit, "", command());
  }
}
