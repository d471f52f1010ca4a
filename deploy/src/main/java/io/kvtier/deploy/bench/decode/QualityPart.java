package io.kvtier.deploy.bench.decode;

import io.kvtier.cachetier.CacheTierConfig;
import io.kvtier.client.KvtierClient;
import io.kvtier.coordinator.CoordinatorConfig;
import io.kvtier.deploy.bench.BenchRow;
import io.kvtier.deploy.bench.Benchmark;
import io.kvtier.deploy.bench.QualitySettings;
import io.kvtier.deploy.bench.decode.Measurement.Configuration;
import io.kvtier.deploy.cases.CaseGenerator;
import io.kvtier.deploy.cases.EvalCase;
import io.kvtier.deploy.cases.EvalCases;
import io.kvtier.deploy.cases.Task;
import io.kvtier.deploy.engine.Decoder;
import io.kvtier.deploy.engine.LlamaModel;
import io.kvtier.deploy.engine.Tokenizer;
import io.kvtier.deploy.service.AllInOne;
import io.kvtier.rpc.EndpointConfig;
import io.kvtier.v1.PlanMode;
import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalDouble;
import java.util.OptionalInt;
import java.util.logging.Level;
import java.util.logging.Logger;

/** The quality part of the decode benchmark: text windows and questions, by budget and mode. */
final class QualityPart {
  private static final long MEMORY = 4L << 30;

  /** Held, since a logger that nobody holds forgets its level. */
  private static final Logger SERVICES_LOG = Logger.getLogger("io.kvtier");

  private final QualitySettings settings;
  private final Goals goals;

  /**
   * A part.
   *
   * @param command reproduces its rows
   */
  QualityPart(QualitySettings settings, String command) {
    this.settings = settings;
    this.goals = new Goals(command);
  }

  /** Starts all services in this process, measures, and stops them. */
  List<BenchRow> run(Benchmark.Progress progress) throws IOException {
    if (settings.windows() == 0 && settings.cases() == 0) {
      return List.of();
    }
    Path directory =
        settings.model().orElse(Path.of(System.getProperty("kvtier.home", "."), "deploy", "model"));
    LlamaModel model = LlamaModel.load(directory);
    Tokenizer tokenizer =
        Tokenizer.read(directory)
            .orElseThrow(() -> new IOException(directory + " has no tokenizer"));
    SERVICES_LOG.setLevel(Level.WARNING);
    CacheTierConfig tier = new CacheTierConfig(EndpointConfig.loopback(), MEMORY, Optional.empty());
    try (Decoder decoder = new Decoder(model);
        AllInOne services = AllInOne.start(CoordinatorConfig.defaults(), tier, MEMORY);
        KvtierClient client = KvtierClient.connect(services.coordinator().target())) {
      List<BenchRow> rows = new ArrayList<>();
      rows.addAll(texts(decoder, client, tokenizer, progress));
      rows.addAll(questions(decoder, client, tokenizer, progress));
      return rows;
    }
  }

  /** The default, every budget in our mode and in TailorKV's. */
  private List<Configuration> configurations() {
    List<Configuration> all = new ArrayList<>();
    all.add(ours("default", OptionalDouble.empty(), OptionalInt.empty(), 4));
    for (double budget : settings.budgets()) {
      String share = "1/" + Math.round(1 / budget);
      OptionalDouble bytes = OptionalDouble.of(budget);
      all.add(ours(share, bytes, OptionalInt.empty(), 4));
      all.add(ours(share + ", 8 bits", bytes, OptionalInt.empty(), 8));
      PlanMode mode = PlanMode.PLAN_MODE_TAILORKV;
      all.add(new Configuration("TailorKV " + share, mode, bytes, OptionalInt.empty(), 4));
    }
    return all;
  }

  /**
   * What {@link #configurations} has, sketches of either kind alone, and every token attended: what
   * the codes' rounding leaves if nothing else is lost.
   */
  private List<Configuration> textConfigurations() {
    List<Configuration> all = configurations();
    all.add(ours("all sparse, 2 planes", OptionalDouble.empty(), OptionalInt.of(2), 4));
    all.add(ours("all sparse, 1 plane", OptionalDouble.empty(), OptionalInt.of(1), 4));
    all.add(ours("all dense", OptionalDouble.of(1), OptionalInt.of(Configuration.ALL_PLANES), 4));
    return all;
  }

  private static Configuration ours(
      String name, OptionalDouble budget, OptionalInt planes, int codeBits) {
    return new Configuration(name, PlanMode.PLAN_MODE_KVTIER, budget, planes, codeBits);
  }

  private List<BenchRow> texts(
      Decoder decoder, KvtierClient client, Tokenizer tokenizer, Benchmark.Progress progress)
      throws IOException {
    if (settings.windows() == 0) {
      return List.of();
    }
    List<TextWindow> windows = windows(decoder, tokenizer);
    List<Configuration> configurations = textConfigurations();
    Measurement measurement = new Measurement(decoder, client, configurations);
    int done = 0;
    for (TextWindow window : windows) {
      progress.at(done++, windows.size(), "text of " + window.scoreFrom());
      measurement.text(window.scoring(settings.scored()), (_, _) -> {});
    }
    return goals.ofText(configurations, measurement);
  }

  private List<TextWindow> windows(Decoder decoder, Tokenizer tokenizer) throws IOException {
    if (settings.text().isEmpty()) {
      return TextWindow.generated(
          tokenizer, settings.windows(), settings.context(), settings.scored(), settings.seed());
    }
    Path file = settings.text().get();
    return file.toString().endsWith(".jsonl")
        ? TextWindow.read(file, settings.windows(), decoder.model().config().vocabSize())
        : TextWindow.ofText(
            file, tokenizer, settings.windows(), settings.context(), settings.scored());
  }

  private List<BenchRow> questions(
      Decoder decoder, KvtierClient client, Tokenizer tokenizer, Benchmark.Progress progress)
      throws IOException {
    if (settings.cases() == 0) {
      return List.of();
    }
    Map<String, List<EvalCase>> groups = groups(decoder, tokenizer);
    int total = groups.values().stream().mapToInt(List::size).sum();
    int done = 0;
    List<BenchRow> rows = new ArrayList<>();
    for (Map.Entry<String, List<EvalCase>> group : groups.entrySet()) {
      List<Configuration> configurations = configurations();
      Measurement measurement = new Measurement(decoder, client, configurations);
      for (EvalCase context : group.getValue()) {
        progress.at(done++, total, group.getKey());
        measurement.cases(context, (_, _) -> {});
      }
      rows.addAll(goals.ofQuestions(group.getKey(), configurations, measurement));
    }
    return rows;
  }

  /** Contexts by task and length. */
  private Map<String, List<EvalCase>> groups(Decoder decoder, Tokenizer tokenizer)
      throws IOException {
    Map<String, List<EvalCase>> groups = new LinkedHashMap<>();
    for (Path file : settings.eval()) {
      for (EvalCase context : EvalCases.read(file, decoder.model().config().vocabSize())) {
        String name = context.task() + " " + context.length();
        add(groups.computeIfAbsent(name, key -> new ArrayList<>()), context);
      }
    }
    if (groups.isEmpty()) {
      CaseGenerator generator = new CaseGenerator(tokenizer);
      for (int length : settings.lengths()) {
        for (Task task : Task.values()) {
          List<EvalCase> contexts = new ArrayList<>();
          groups.put(task.label() + " " + length, contexts);
          for (int i = 0; questions(contexts) < settings.cases(); i++) {
            add(contexts, generator.generate(task, length, settings.seed() * 1_000_003 + i));
          }
        }
      }
    }
    return groups;
  }

  private static int questions(List<EvalCase> contexts) {
    return contexts.stream().mapToInt(context -> context.queries().size()).sum();
  }

  /** Adds as many of a context's questions as are still wanted. */
  private void add(List<EvalCase> contexts, EvalCase context) {
    int wanted = Math.min(settings.cases() - questions(contexts), context.queries().size());
    if (wanted > 0) {
      contexts.add(
          new EvalCase(
              context.id(),
              context.task(),
              context.length(),
              context.nKeys(),
              context.contextIds(),
              context.queries().subList(0, wanted)));
    }
  }
}
