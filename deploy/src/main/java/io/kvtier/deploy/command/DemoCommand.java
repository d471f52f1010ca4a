package io.kvtier.deploy.command;

import io.kvtier.KvtierException;
import io.kvtier.cachetier.CacheTierConfig;
import io.kvtier.client.KvtierClient;
import io.kvtier.coordinator.CoordinatorConfig;
import io.kvtier.deploy.demo.Demo;
import io.kvtier.deploy.demo.DemoConfig;
import io.kvtier.deploy.demo.DemoRow;
import io.kvtier.deploy.demo.DemoTable;
import io.kvtier.deploy.engine.Decoder;
import io.kvtier.deploy.engine.LlamaModel;
import io.kvtier.deploy.engine.ReferenceLogits;
import io.kvtier.deploy.engine.Tokenizer;
import io.kvtier.deploy.service.AllInOne;
import io.kvtier.rpc.Closing;
import io.kvtier.rpc.EndpointConfig;
import java.io.IOException;
import java.nio.file.Path;
import java.util.List;
import java.util.Optional;
import java.util.OptionalDouble;
import java.util.concurrent.Callable;
import java.util.logging.Level;
import java.util.logging.Logger;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;

/** The demo. */
@Command(
    name = "demo",
    description = {
      "Decodes long contexts with full KV and through kvtier, side by side.",
      "Without options: the shipped model, generated cases at 2k, 8k and 16k tokens, all services"
          + " in this process."
    },
    mixinStandardHelpOptions = true)
public final class DemoCommand implements Callable<Integer> {
  private static final long MEMORY = 4L << 30;

  /** Held, since a logger that nobody holds forgets its level. */
  private static final Logger SERVICES_LOG = Logger.getLogger("io.kvtier");

  @Option(
      names = "--length",
      split = ",",
      defaultValue = "2k,8k,16k",
      converter = TokenCount.class,
      description = "context lengths in tokens (default: ${DEFAULT-VALUE})")
  private List<Integer> lengths = List.of();

  @Option(
      names = "--cases",
      defaultValue = "3",
      description = "questions a task and length (default: ${DEFAULT-VALUE})")
  private int cases;

  @Option(
      names = "--seed",
      defaultValue = "1",
      description = "seed of the generated cases (default: ${DEFAULT-VALUE})")
  private long seed;

  @Option(
      names = "--budget",
      converter = Share.class,
      description =
          "device bytes as a share of the full KV cache at 16 bits (default: 1/4, more for short"
              + " contexts)")
  private @Nullable Double budget;

  @Option(
      names = "--model",
      description = "directory of a Llama-architecture model: config.json, model.safetensors")
  private @Nullable Path model;

  @Option(
      names = "--eval",
      description =
          "file of cases (JSON lines) to ask instead of generated ones; --length is not used then")
  private @Nullable Path eval;

  @Option(
      names = "--endpoint",
      description =
          "a running coordinator, host:port (default: start all services in this process)")
  private @Nullable String endpoint;

  @Option(
      names = "--mode",
      defaultValue = "kvtier",
      description = "kvtier or tailorkv (default: ${DEFAULT-VALUE})")
  private String mode = "kvtier";

  @Option(
      names = "--code-bits",
      defaultValue = "4",
      description = "bits of a stored key or value element, 4 or 8 (default: ${DEFAULT-VALUE})")
  private int codeBits;

  @Mixin private final TraceOptions trace = new TraceOptions();
  @Mixin private final DeviceOptions device = new DeviceOptions();

  @Option(names = "--json", description = "file to write the rows to as JSON")
  private @Nullable Path json;

  @Override
  public Integer call() throws IOException {
    DemoConfig config =
        new DemoConfig(
            model == null ? shippedModel() : model,
            lengths,
            cases,
            seed,
            budget == null ? OptionalDouble.empty() : OptionalDouble.of(budget),
            Optional.ofNullable(eval),
            Optional.ofNullable(endpoint),
            PlanModes.of(mode),
            codeBits);
    if (json != null) {
      Rows.requireWritable(json);
    }
    if (trace.wanted() && endpoint != null) {
      throw KvtierException.invalid(
          "--trace is for services in this process; those at %s trace what their gpu-worker's own"
              + " --trace says",
          endpoint);
    }
    LlamaModel llama = LlamaModel.load(config.model());
    try (Decoder decoder = new Decoder(llama)) {
      System.out.println(checked(decoder, config.model()));
      List<DemoRow> rows = run(config, decoder);
      System.out.println(DemoTable.of(rows));
      System.out.println();
      System.out.println(DemoTable.legend());
      if (json != null) {
        Rows.write(json, rows);
        System.out.println("rows written to " + json);
      }
    }
    return 0;
  }

  private List<DemoRow> run(DemoConfig config, Decoder decoder) throws IOException {
    Optional<Tokenizer> tokenizer = Tokenizer.read(config.model());
    Closing closing = new Closing();
    Optional<AllInOne> services =
        config.endpoint().isPresent() ? Optional.empty() : Optional.of(startServices());
    try (closing) {
      services.ifPresent(closing::add);
      String target =
          services
              .map(own -> own.coordinator().target())
              .orElseGet(() -> config.endpoint().orElseThrow());
      KvtierClient client = closing.add(KvtierClient.connect(target));
      // Asked first, so that a wrong endpoint is told before a minute of prefill.
      var _ = client.list();
      try (Bar bar = new Bar("demo")) {
        return new Demo(config, decoder, client, bar::at).run(tokenizer);
      }
    } finally {
      services.flatMap(own -> own.worker().traceSummary()).ifPresent(System.out::println);
    }
  }

  private AllInOne startServices() {
    // Who joins whom in this process is no news to whoever watches the demo.
    SERVICES_LOG.setLevel(Level.WARNING);
    return AllInOne.start(
        CoordinatorConfig.defaults(),
        new CacheTierConfig(EndpointConfig.loopback(), MEMORY, Optional.empty()),
        worker -> device.applyTo(trace.applyTo(worker.withDeviceBytesMax(MEMORY))),
        DeviceOptions::tell);
  }

  private static String checked(Decoder decoder, Path directory) throws IOException {
    Optional<ReferenceLogits> reference = ReferenceLogits.read(directory);
    if (reference.isEmpty()) {
      return "model in %s: loaded; no reference_logits.json there, so its logits are not checked"
          .formatted(directory);
    }
    ReferenceLogits.Report report = reference.get().check(decoder);
    return "model in %s: logits of %d reference prompts agree within %.1e"
        .formatted(directory, report.prompts(), report.maxDifference());
  }

  static Path shippedModel() {
    String home = System.getProperty("kvtier.home");
    if (home == null) {
      throw KvtierException.invalid(
          "the shipped model is found by the launcher ./kvtier alone; give --model DIR");
    }
    return Path.of(home, "deploy", "model");
  }
}
