package io.kvtier.deploy.bench.decode;

import io.kvtier.deploy.bench.BenchRow;
import io.kvtier.deploy.bench.BenchSettings;
import io.kvtier.deploy.bench.Benchmark;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.util.ArrayList;
import java.util.List;

/**
 * How near decoding through kvtier comes to decoding with full KV: services in this process, the
 * public client, the shipped model's own text and questions. Then what a token of a long context
 * moves, waits for and takes.
 */
public final class DecodeBenchmark implements Benchmark {
  private static final double[] BUDGETS = {1. / 4, 1. / 8};
  private static final int STEPS = 60;

  @Override
  public String name() {
    return "decode";
  }

  @Override
  public String description() {
    return "quality of decoding through kvtier against full KV, by device budget, beside TailorKV";
  }

  @Override
  public List<BenchRow> run(BenchSettings settings, Progress progress) {
    try {
      List<BenchRow> rows = new ArrayList<>();
      rows.addAll(new QualityPart(settings.quality(), command()).run(progress));
      rows.addAll(new LongContextPart(settings.tokens(), STEPS, command()).run(BUDGETS, progress));
      rows.addAll(new AheadPart(settings.tokens(), command()).run(progress));
      rows.addAll(new TokenPart(settings.tokens(), command()).run(BUDGETS[0], progress));
      return rows;
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }
}
