package io.kvtier.deploy.command;

import com.github.freva.asciitable.AsciiTable;
import com.github.freva.asciitable.Column;
import com.github.freva.asciitable.ColumnData;
import com.github.freva.asciitable.HorizontalAlign;
import io.kvtier.KvtierException;
import io.kvtier.deploy.bench.BenchRow;
import io.kvtier.deploy.bench.BenchSettings;
import io.kvtier.deploy.bench.Benchmark;
import io.kvtier.deploy.bench.CodecBenchmark;
import io.kvtier.deploy.bench.DeviceBenchmark;
import io.kvtier.deploy.bench.ErrorBenchmark;
import io.kvtier.deploy.bench.KernelsBenchmark;
import io.kvtier.deploy.bench.OffloadBenchmark;
import io.kvtier.deploy.bench.PrefixBenchmark;
import io.kvtier.deploy.bench.Roofline;
import io.kvtier.deploy.bench.RowsBenchmark;
import io.kvtier.deploy.bench.TierBenchmark;
import io.kvtier.deploy.bench.decode.DecodeBenchmark;
import java.io.IOException;
import java.nio.file.Path;
import java.util.List;
import java.util.Locale;
import java.util.Optional;
import java.util.concurrent.Callable;
import java.util.function.Function;
import java.util.stream.Collectors;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;

/** The benchmarks. */
@Command(
    name = "bench",
    description =
        "Runs a benchmark: ours and a reference, measured in turns. Without a name: lists them.",
    mixinStandardHelpOptions = true)
public final class BenchCommand implements Callable<Integer> {
  private static final List<Benchmark> BENCHMARKS =
      List.of(
          new CodecBenchmark(),
          new KernelsBenchmark(),
          new ErrorBenchmark(),
          new TierBenchmark(),
          new RowsBenchmark(),
          new DecodeBenchmark(),
          new PrefixBenchmark(),
          new OffloadBenchmark(),
          new DeviceBenchmark());

  private static final int QUICK_TOKENS = 32_768;

  @Parameters(index = "0", arity = "0..1", description = "which one")
  private @Nullable String name;

  @Option(names = "--json", description = "file to write the rows to as JSON")
  private @Nullable Path json;

  @Option(
      names = "--tokens",
      defaultValue = "131072",
      description = "longest context of the kernels (default: ${DEFAULT-VALUE})")
  private int tokens;

  @Option(
      names = "--quick",
      description = "kernels: no longer context than 32,768 tokens, in half a minute")
  private boolean quick;

  @Option(
      names = "--peer",
      description = "measure beside another system, fetched if need be: kernels know ggml")
  private @Nullable String peer;

  @Option(
      names = "--roofline",
      description = "of the benchmark device: compute the limits of an RTX 3090, measure nothing")
  private boolean roofline;

  @Mixin private final DeviceOptions device = new DeviceOptions();
  @Mixin private final QualityOptions quality = new QualityOptions();

  @Override
  public Integer call() throws IOException {
    if (name == null) {
      for (Benchmark benchmark : BENCHMARKS) {
        System.out.printf("%-8s %s%n", benchmark.name(), benchmark.description());
      }
      return 0;
    }
    if (roofline) {
      System.out.println("Computed, not measured:");
      System.out.println(roofline());
      return 0;
    }
    if (json != null) {
      Rows.requireWritable(json);
    }
    int longest = quick ? Math.min(tokens, QUICK_TOKENS) : tokens;
    BenchSettings settings =
        new BenchSettings(longest, Optional.ofNullable(peer), quality.settings(), device.device);
    List<BenchRow> rows;
    Benchmark benchmark = find(name);
    try (Bar bar = new Bar(benchmark.name())) {
      rows = benchmark.run(settings, bar::at);
    }
    System.out.println(table(rows));
    if (json != null) {
      Rows.write(json, rows);
    }
    return 0;
  }

  private static Benchmark find(String name) {
    return BENCHMARKS.stream()
        .filter(benchmark -> benchmark.name().equals(name))
        .findFirst()
        .orElseThrow(() ->
            KvtierException.invalid(
                "no benchmark is called '%s'; there are %s",
                name, BENCHMARKS.stream().map(Benchmark::name).collect(Collectors.joining(", "))));
  }

  private static String table(List<BenchRow> rows) {
    return AsciiTable.getTable(
        AsciiTable.NO_BORDERS,
        rows,
        List.of(
            text("name", BenchRow::name),
            number("ours", BenchRow::ours),
            number("reference", BenchRow::reference),
            text("unit", BenchRow::unit),
            number("ratio", BenchRow::ratio),
            text("goal", BenchRow::goal),
            text("command", BenchRow::command)));
  }

  private static String roofline() {
    return AsciiTable.getTable(
        AsciiTable.NO_BORDERS,
        Roofline.rows(),
        List.of(
            new Column().header("tokens").with(row -> (row.tokens() >> 10) + "k"),
            new Column().header("what").dataAlign(HorizontalAlign.LEFT).with(Roofline.Row::what),
            new Column().header("MB").with(row -> text(row.bytes() / 1e6)),
            new Column().header("ms at the limit").with(row -> text(row.ms())),
            new Column().header("").dataAlign(HorizontalAlign.LEFT).with(Roofline.Row::note)));
  }

  private static ColumnData<BenchRow> text(String header, Function<BenchRow, String> value) {
    return new Column().header(header).dataAlign(HorizontalAlign.LEFT).with(value);
  }

  private static ColumnData<BenchRow> number(String header, Function<BenchRow, Double> value) {
    return new Column()
        .header(header)
        .headerAlign(HorizontalAlign.RIGHT)
        .dataAlign(HorizontalAlign.RIGHT)
        .with(row -> text(value.apply(row)));
  }

  /** Three digits; nothing where there is no number. */
  private static String text(double value) {
    return Double.isNaN(value) ? "" : String.format(Locale.ROOT, "%.3g", value);
  }
}
