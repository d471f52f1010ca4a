package io.kvtier.deploy.command;

import com.github.freva.asciitable.AsciiTable;
import com.github.freva.asciitable.Column;
import com.github.freva.asciitable.HorizontalAlign;
import io.kvtier.deploy.simulate.Simulation;
import io.kvtier.deploy.simulate.SimulationConfig;
import io.kvtier.deploy.simulate.SimulationReport;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.concurrent.Callable;
import java.util.logging.Level;
import java.util.logging.Logger;
import java.util.stream.Stream;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;

/** Runs a cluster in virtual time. */
@Command(
    name = "simulate",
    description = {
      "Runs a cluster in virtual time: the product's own placement, planning, replication, leases"
          + " and eviction under a generated load, with losses of nodes.",
      "Prints balance, moved bytes and hit ratios, and whether every rule held (exit code 1 if"
          + " not). The same options give the same output."
    },
    mixinStandardHelpOptions = true,
    showDefaultValues = true)
public final class SimulateCommand implements Callable<Integer> {
  /** Kept here, or its level would be forgotten. */
  private static final Logger COORDINATOR_LOG = Logger.getLogger("io.kvtier.coordinator");

  @Option(names = "--seed", defaultValue = "1", description = "of everything that is drawn")
  private long seed;

  @Option(names = "--workers", defaultValue = "1000", description = "gpu-workers")
  private int workers;

  @Option(
      names = "--tiers",
      defaultValue = "15",
      description = "cache tiers at the beginning; one more joins later")
  private int tiers;

  @Option(names = "--sessions", defaultValue = "10000", description = "sessions in all")
  private int sessions;

  @Option(
      names = "--arrivals",
      defaultValue = "20m",
      converter = TimeSpan.class,
      description = "time over which conversations begin")
  private Duration arrivals = Duration.ofMinutes(10);

  @Option(
      names = "--losses",
      defaultValue = "0.5",
      description =
          "share of the workers that are lost, cut off or drained an hour; with any, tiers are too")
  private double losses;

  @Option(
      names = "--lost-answers",
      defaultValue = "0.002",
      description = "share of the calls to workers whose answer is lost")
  private double lostAnswers;

  @Option(names = "--replicas", defaultValue = "2", description = "copies of each page")
  private int replicas;

  @Option(
      names = "--write-acks",
      defaultValue = "2",
      description = "copies that make a page durable")
  private int writeAcks;

  @Option(
      names = "--layers",
      defaultValue = "1",
      description = "layers of the model, each with 8 KV heads of 128 dimensions")
  private int layers;

  @Option(
      names = "--tier-bytes",
      defaultValue = "640m",
      converter = ByteSize.class,
      description = "bound of each tier")
  private long tierBytes;

  @Option(
      names = "--device-bytes",
      defaultValue = "256m",
      converter = ByteSize.class,
      description = "bound of each worker")
  private long deviceBytes;

  @Option(
      names = "--prefixes",
      defaultValue = "500",
      description = "shared beginnings of prompts, chosen by Zipf's law")
  private int prefixes;

  @Option(
      names = "--prefix-keys",
      defaultValue = "524288",
      description = "bound of the coordinator's prefix directory")
  private int prefixKeys;

  @Option(names = "--json", description = "file to write figures and rules to as JSON")
  private @Nullable Path json;

  @Option(
      names = "--svg",
      description = "file to draw the balance to: sessions of each worker, bytes of each tier")
  private @Nullable Path svg;

  @Override
  public Integer call() throws IOException {
    for (Path file : Stream.of(json, svg).filter(Objects::nonNull).toList()) {
      Rows.requireWritable(file);
    }
    // Of a thousand workers some are always lost.
    COORDINATOR_LOG.setLevel(Level.OFF);
    SimulationConfig config =
        new SimulationConfig(
            seed,
            workers,
            tiers,
            sessions,
            arrivals,
            losses,
            lostAnswers,
            replicas,
            writeAcks,
            layers,
            tierBytes,
            deviceBytes,
            prefixes,
            prefixKeys);
    SimulationReport report;
    try (Bar bar = new Bar("simulate")) {
      report = Simulation.run(config, bar::at);
    }
    print(report);
    if (json != null) {
      Rows.write(
          json,
          List.of(
              Map.of(
                  "figures", report.rows(),
                  "rules", report.rules(),
                  "breaches", report.breaches())));
    }
    if (svg != null) {
      Files.writeString(svg, BalancePicture.of(report));
    }
    return report.breaches().isEmpty() ? 0 : 1;
  }

  private static void print(SimulationReport report) {
    System.out.println(
        AsciiTable.getTable(
            AsciiTable.NO_BORDERS,
            report.rows(),
            List.of(
                new Column()
                    .header("figure")
                    .dataAlign(HorizontalAlign.LEFT)
                    .with(SimulationReport.Row::what),
                new Column()
                    .header("")
                    .maxWidth(60)
                    .dataAlign(HorizontalAlign.LEFT)
                    .with(SimulationReport.Row::value))));
    System.out.println(
        AsciiTable.getTable(
            AsciiTable.NO_BORDERS,
            report.rules(),
            List.of(
                new Column()
                    .header("rule")
                    .maxWidth(100)
                    .dataAlign(HorizontalAlign.LEFT)
                    .with(SimulationReport.Held::rule),
                new Column()
                    .header("broken")
                    .dataAlign(HorizontalAlign.RIGHT)
                    .with(rule -> Long.toString(rule.broken())))));
    report.breaches().forEach(System.out::println);
  }
}
