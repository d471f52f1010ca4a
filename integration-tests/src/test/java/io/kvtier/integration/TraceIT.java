package io.kvtier.integration;

import static io.kvtier.integration.Synthetic.LAYERS;
import static io.kvtier.integration.Synthetic.Q_ROW;
import static org.assertj.core.api.Assertions.assertThat;

import io.kvtier.cachetier.CacheTierConfig;
import io.kvtier.client.DecodeStream;
import io.kvtier.client.KvSession;
import io.kvtier.client.KvtierClient;
import io.kvtier.client.SessionOptions;
import io.kvtier.coordinator.CoordinatorConfig;
import io.kvtier.deploy.Kvtier;
import io.kvtier.deploy.service.AllInOne;
import io.kvtier.deploy.trace.LayerRow;
import io.kvtier.deploy.trace.Trace;
import io.kvtier.gpuworker.trace.TraceConfig;
import io.kvtier.gpuworker.trace.TraceStep;
import io.kvtier.rpc.EndpointConfig;
import io.kvtier.v1.DecodeResponse;
import io.kvtier.v1.StepStats;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** A trace says what the engine was told of each step, and the command shows it. */
class TraceIT {
  private static final int TOKENS = 2000;
  private static final int STEPS = 20;

  @TempDir private Path directory;
  private double wasted;

  /** Serves a session's steps with a trace; what the engine was told of each. */
  private List<DecodeResponse> decode(Path file) throws Exception {
    List<DecodeResponse> told = new ArrayList<>();
    AllInOne services =
        AllInOne.start(
            CoordinatorConfig.defaults(),
            new CacheTierConfig(EndpointConfig.loopback(), 64L << 20, Optional.empty()),
            worker ->
                worker
                    .withDeviceBytesMax(64L << 20)
                    .withTrace(new TraceConfig(file, TraceConfig.BYTES_MAX_DEFAULT)));
    try (services;
        KvtierClient client = KvtierClient.connect(services.coordinator().target());
        KvSession session = client.open(SessionOptions.of(Synthetic.geometry(), TOKENS + STEPS))) {
      Synthetic model = new Synthetic(21, TOKENS + STEPS);
      model.prefill(session, TOKENS);
      try (DecodeStream stream = session.decode()) {
        for (int position = TOKENS; position < TOKENS + STEPS; position++) {
          for (int layer = 0; layer < LAYERS; layer++) {
            float[] hint = layer + 1 < LAYERS ? model.query() : new float[0];
            told.add(model.step(stream, layer, position, model.query(), hint, new float[Q_ROW]));
          }
        }
      }
      wasted = OpsPage.metric(services.worker().opsUrl(), "kvtier_worker_wasted_bytes_total");
    }
    assertThat(services.worker().traceSummary().orElseThrow())
        .isEqualTo("trace: %d steps of a layer in %s".formatted(LAYERS * STEPS, file));
    return told;
  }

  @Test
  void eachStepsLineSaysWhatTheEngineWasTold() throws Exception {
    Path file = directory.resolve("trace.csv");
    List<DecodeResponse> told = decode(file);
    Trace trace = Trace.read(file);

    assertThat(trace.dropped()).isZero();
    assertThat(trace.steps()).hasSameSizeAs(told);
    for (int i = 0; i < told.size(); i++) {
      TraceStep step = trace.steps().get(i);
      StepStats stats = told.get(i).getStats();
      assertThat(step.layer()).isEqualTo(told.get(i).getLayer());
      assertThat(step.position()).isEqualTo(told.get(i).getPosition());
      assertThat(step.selected()).isEqualTo(stats.getSelectedTokens()).isPositive();
      assertThat(step.candidates()).isGreaterThanOrEqualTo(step.selected());
      assertThat(step.hits()).isEqualTo(stats.getSectionsHit());
      assertThat(step.fetched()).isEqualTo(stats.getSectionsFetched());
      assertThat(step.near()).isEqualTo(stats.getSectionsNear());
      assertThat(step.bytes()).isEqualTo(stats.getBytesFetched());
      assertThat(TimeUnit.NANOSECONDS.toMicros(step.unhiddenNs()))
          .isEqualTo(TimeUnit.NANOSECONDS.toMicros(stats.getUnhiddenNs()));
      assertThat(step.stepNs() + 2000).isGreaterThan(stats.getComputeNs() + stats.getUnhiddenNs());
      assertThat(step.classes()).hasSize(Synthetic.KV_HEADS).matches("[DTOS]+");
    }
    // Hints that have nothing to do with the query: the first layer gets none.
    assertThat(LayerRow.of(trace).get(0).wastedMegabytes()).isZero();
    assertThat(LayerRow.of(trace).get(1).wastedMegabytes()).isPositive();
    assertThat(trace.steps().stream().mapToLong(TraceStep::wasted).sum())
        .isEqualTo(Math.round(wasted));
    assertThat(LayerRow.of(trace)).extracting(LayerRow::steps).containsOnly(STEPS);
    assertThat(Kvtier.run("trace", file.toString())).isZero();
    assertThat(directory.resolve("trace.csv.svg")).content().contains("40 steps of a layer");
  }

  @Test
  void aFileThatIsNoTraceEndsTheCommandWithOneLine() {
    assertThat(Kvtier.run("trace", directory.resolve("none").toString())).isEqualTo(1);
  }
}
