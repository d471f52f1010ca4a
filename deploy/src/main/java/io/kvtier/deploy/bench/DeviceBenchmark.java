package io.kvtier.deploy.bench;

import io.kvtier.gpuworker.Devices;
import io.kvtier.gpuworker.core.HeadPolicy;
import io.kvtier.gpuworker.device.AttentionDevice;
import io.kvtier.gpuworker.device.LayerPass;
import io.kvtier.page.Codec;
import io.kvtier.page.PageLayout;
import io.kvtier.page.Residence;
import java.util.ArrayList;
import java.util.List;

/**
 * Steps of one layer of Llama-3.1-8B's geometry on any device, against the time that reading their
 * bytes once takes at the rate at which the device copies within its memory.
 */
public final class DeviceBenchmark implements Benchmark {
  private static final HeadPolicy CHOOSE_1K = HeadPolicy.sparse(1024, 1024, 0);
  private static final int SHORT_TOKENS = 4096;
  private static final int ALMOST_NO_TOKENS = 256;

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
            LAYERS_WORTH * BenchLayer.bytes(tokens),
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
        double least = 1e3 * step(device, ALMOST_NO_TOKENS, dense, progress);
        double few = 1e3 * step(device, SHORT_TOKENS, dense, progress);
        String what = dense ? "dense" : "sparse, up to 1k tokens a head";
        rows.add(
            row(
                "%s step, %d tokens: overhead".formatted(what, ALMOST_NO_TOKENS),
                least,
                Double.NaN,
                "ms"));
        rows.add(
            limited(
                "%s step, 4k tokens / its bytes copied".formatted(what),
                few,
                SHORT_TOKENS,
                dense,
                bandwidth));
        if (tokens > SHORT_TOKENS) {
          double many = 1e3 * step(device, tokens, dense, progress);
          rows.add(
              limited(
                  "%s step, %dk tokens / its bytes copied".formatted(what, tokens >> 10),
                  many,
                  tokens,
                  dense,
                  bandwidth));
        }
      }
    }
    return rows;
  }

  private static double step(AttentionDevice device, int tokens, boolean dense, Progress progress) {
    progress.at(0, 1, "filling a layer of %d tokens".formatted(tokens));
    try (BenchLayer layer = new BenchLayer(device, tokens, dense, 1)) {
      LayerPass pass = layer.pass(dense ? HeadPolicy.DENSE : CHOOSE_1K);
      float[] queries = BenchLayer.queries(9);
      float[] output = new float[BenchLayer.Q_HEADS * BenchLayer.HEAD_DIM];
      float[] lse = new float[BenchLayer.Q_HEADS];
      return Turns.medianSeconds(
          () -> layer.attend(pass, queries, output, lse), progress, tokens + " tokens");
    }
  }

  private BenchRow limited(String name, double ms, int tokens, boolean dense, double bandwidth) {
    PageLayout layout =
        new PageLayout(Codec.ROT4, Codec.ROT4, BenchLayer.KV_HEADS, BenchLayer.HEAD_DIM);
    int sections = Residence.DENSE.sketch() | (dense ? Residence.DENSE.codes() : 0);
    double bytes =
        (double) layout.lengthOf(sections) / PageLayout.TOKENS * tokens * BenchLayer.KV_HEADS;
    return row(name, ms, 1e3 * bytes / bandwidth, "ms");
  }

  private BenchRow row(String name, double ours, double reference, String unit) {
    return new BenchRow(name, ours, reference, ours / reference, unit, "", command());
  }
}
