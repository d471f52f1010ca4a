package io.kvtier.deploy.bench.decode;

import static org.assertj.core.api.Assertions.assertThat;

import io.kvtier.cachetier.CacheTierConfig;
import io.kvtier.client.KvtierClient;
import io.kvtier.coordinator.CoordinatorConfig;
import io.kvtier.deploy.bench.decode.Measurement.Configuration;
import io.kvtier.deploy.cases.CaseGenerator;
import io.kvtier.deploy.cases.EvalCase;
import io.kvtier.deploy.cases.Task;
import io.kvtier.deploy.engine.Decoder;
import io.kvtier.deploy.engine.LlamaModel;
import io.kvtier.deploy.engine.Tokenizer;
import io.kvtier.deploy.service.AllInOne;
import io.kvtier.rpc.Closing;
import io.kvtier.rpc.EndpointConfig;
import io.kvtier.v1.PlanMode;
import java.io.IOException;
import java.nio.file.Path;
import java.util.List;
import java.util.Optional;
import java.util.OptionalDouble;
import java.util.OptionalInt;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/**
 * What tiering costs in quality, on the shipped model: {@code bench decode}'s measurement in small,
 * held to the figures that it is to hold.
 */
@Timeout(180)
class QualityIT {
  private static final int CONTEXT = 2048;
  private static final int SCORED = 48;
  private static final int SEED = 7;
  private static final long MEMORY = 1L << 30;

  private static final double DIVERGENCE_MAX = .010;
  private static final double ERROR_MEAN_MAX = .075;
  private static final double ERROR_P99_MAX = .31;

  private static final Configuration DEFAULT =
      of("default", PlanMode.PLAN_MODE_KVTIER, OptionalDouble.empty(), OptionalInt.empty());
  private static final Configuration EIGHTH =
      of("1/8", PlanMode.PLAN_MODE_KVTIER, OptionalDouble.of(1. / 8), OptionalInt.empty());
  private static final Configuration SIXTEENTH =
      of("1/16", PlanMode.PLAN_MODE_KVTIER, OptionalDouble.of(1. / 16), OptionalInt.empty());
  private static final Configuration FINER =
      new Configuration(
          "1/16, 8 bits",
          PlanMode.PLAN_MODE_KVTIER,
          OptionalDouble.of(1. / 16),
          OptionalInt.empty(),
          8);
  private static final Configuration TAILORKV =
      of(
          "TailorKV 1/16",
          PlanMode.PLAN_MODE_TAILORKV,
          OptionalDouble.of(1. / 16),
          OptionalInt.empty());
  private static final Configuration SKETCHED =
      of("2 planes", PlanMode.PLAN_MODE_KVTIER, OptionalDouble.empty(), OptionalInt.of(2));

  private static final Closing CLOSING = new Closing();
  private static Decoder decoder;
  private static Tokenizer tokenizer;
  private static KvtierClient client;

  private static Configuration of(
      String name, PlanMode mode, OptionalDouble budget, OptionalInt planes) {
    return new Configuration(name, mode, budget, planes, 4);
  }

  @BeforeAll
  static void start() throws IOException {
    Path directory = Path.of(System.getProperty("kvtier.home", ".."), "deploy", "model");
    tokenizer = Tokenizer.read(directory).orElseThrow();
    decoder = CLOSING.add(new Decoder(LlamaModel.load(directory)));
    CacheTierConfig tier = new CacheTierConfig(EndpointConfig.loopback(), MEMORY, Optional.empty());
    AllInOne services = CLOSING.add(AllInOne.start(CoordinatorConfig.defaults(), tier, MEMORY));
    client = CLOSING.add(KvtierClient.connect(services.coordinator().target()));
  }

  @AfterAll
  static void close() {
    CLOSING.close();
  }

  @Test
  void textIsContinuedAsWithFullKv() {
    List<Configuration> all = List.of(DEFAULT, EIGHTH, SIXTEENTH, FINER, TAILORKV, SKETCHED);
    Measurement measurement = new Measurement(decoder, client, all);
    TextWindow window = TextWindow.generated(tokenizer, 1, CONTEXT, SCORED, SEED).getFirst();
    measurement.text(window, (_, _) -> {});
    for (int i = 0; i < all.size(); i++) {
      Tally tally = measurement.tally(i);
      if (all.get(i).mode() == PlanMode.PLAN_MODE_KVTIER) {
        String name = all.get(i).name();
        assertThat(tally.meanDivergence()).as(name).isLessThanOrEqualTo(DIVERGENCE_MAX);
        assertThat(tally.errorMean()).as(name).isLessThanOrEqualTo(ERROR_MEAN_MAX);
        assertThat(tally.errorP99()).as(name).isLessThanOrEqualTo(ERROR_P99_MAX);
      }
    }
    Tally sketched = measurement.tally(all.indexOf(SKETCHED));
    assertThat(sketched.captured(0)).as("mass in 64 tokens").isGreaterThanOrEqualTo(.94);
    assertThat(sketched.captured(1)).as("mass in 256 tokens").isGreaterThanOrEqualTo(.977);
    assertThat(sketched.rowsWithin())
        .as("rows whose rest is within 1 %")
        .isGreaterThanOrEqualTo(.97);
    assertThat(measurement.tally(all.indexOf(SIXTEENTH)).meanDivergence())
        .as("KL at 1/16, beside TailorKV's")
        .isLessThanOrEqualTo(measurement.tally(all.indexOf(TAILORKV)).meanDivergence() / 3);
    assertThat(measurement.tally(all.indexOf(FINER)).meanDivergence())
        .as("KL by eight bits, beside that by four")
        .isLessThanOrEqualTo(measurement.tally(all.indexOf(SIXTEENTH)).meanDivergence() / 5);
    for (Configuration bounded : List.of(EIGHTH, SIXTEENTH, FINER)) {
      assertThat(measurement.tally(all.indexOf(bounded)).deviceShare())
          .as(bounded.name())
          .isLessThanOrEqualTo(bounded.budget().getAsDouble());
    }
  }

  /** Where TailorKV has rows enough four bits lose to its sixteen (README), and eight do not. */
  @Test
  void byEightBitsTextIsContinuedBetterThanByTailorKv() {
    List<Configuration> all = List.of(FINER, TAILORKV);
    Measurement measurement = new Measurement(decoder, client, all);
    TextWindow window = TextWindow.generated(tokenizer, 1, 4096, SCORED, SEED).getFirst();
    measurement.text(window, (_, _) -> {});
    assertThat(measurement.tally(0).meanDivergence())
        .as("KL at 1/16, beside TailorKV's")
        .isLessThanOrEqualTo(measurement.tally(1).meanDivergence() / 3);
    assertThat(measurement.tally(0).deviceShare()).isLessThanOrEqualTo(1. / 16);
  }

  @Test
  void questionsAreAnsweredAsWithFullKv() {
    List<Configuration> all = List.of(DEFAULT, EIGHTH, SIXTEENTH);
    CaseGenerator generator = new CaseGenerator(tokenizer);
    Measurement measurement = new Measurement(decoder, client, all);
    for (Task task : Task.values()) {
      EvalCase context = generator.generate(task, CONTEXT, SEED);
      measurement.cases(context, (_, _) -> {});
    }
    for (int i = 0; i < all.size(); i++) {
      Tally tally = measurement.tally(i);
      assertThat(tally.right())
          .as("%s, right of %d", all.get(i).name(), tally.cases())
          .isGreaterThanOrEqualTo(tally.rightFull() - 1);
    }
    assertThat(measurement.tally(0).rightFull()).isPositive();
  }
}
