package io.kvtier.integration;

import static io.kvtier.integration.Synthetic.LAYERS;
import static io.kvtier.integration.Synthetic.Q_ROW;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.client.DecodeStream;
import io.kvtier.client.KvSession;
import io.kvtier.client.KvtierClient;
import io.kvtier.client.PrefillStream;
import io.kvtier.client.SessionOptions;
import io.kvtier.rpc.Closing;
import io.kvtier.v1.HeadClass;
import io.kvtier.v1.Plan;
import io.kvtier.v1.Session;
import io.kvtier.v1.TokenRange;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** Sessions whose worker, tier or everything is killed go on as if nothing had happened. */
@Timeout(value = 5, unit = TimeUnit.MINUTES)
class FailoverIT {
  private static final int TOKENS = 1000;
  private static final int TOKENS_MAX = 1400;
  private static final int STEPS = 40;
  private static final Duration TIMEOUT = Duration.ofSeconds(40);

  @TempDir private Path data;

  private final Closing started = new Closing();

  @SuppressWarnings("NullAway.Init")
  private ProcessCluster cluster;

  @SuppressWarnings("NullAway.Init")
  private KvtierClient client;

  private void start(int tierCount, int workerCount) throws Exception {
    start(tierCount, workerCount, "--no-rehearsal");
  }

  private void start(int tierCount, int workerCount, String... workerOptions) throws Exception {
    cluster = started.add(new ProcessCluster(data, 1, workerOptions));
    cluster.startAll(1, tierCount, workerCount);
    client = cluster.connect(TIMEOUT);
  }

  @AfterEach
  void endAll() {
    started.close();
  }

  private static SessionOptions options() {
    Plan plan = Synthetic.plan(HeadClass.HEAD_CLASS_SPARSE, 1024, 0);
    return new SessionOptions(Synthetic.geometry(), TOKENS_MAX, 0, Optional.of(plan));
  }

  private static float[][][] queries(Synthetic model) {
    float[][][] queries = new float[STEPS][LAYERS][];
    for (float[][] layers : queries) {
      for (int layer = 0; layer < LAYERS; layer++) {
        layers[layer] = model.query();
      }
    }
    return queries;
  }

  /** Does something between two messages of a decode. */
  private interface Fault {
    void at(int step, int layer) throws Exception;
  }

  /** What a session gives that nothing happens to. */
  private List<float[]> faultFree(Synthetic model, float[][][] queries) throws Exception {
    KvSession session = client.open(options());
    model.prefill(session, TOKENS);
    List<float[]> outputs = decode(model, session, queries, 0, STEPS, (step, layer) -> {});
    session.close();
    return outputs;
  }

  private static List<float[]> decode(
      Synthetic model, KvSession session, float[][][] queries, int from, int to, Fault fault)
      throws Exception {
    List<float[]> outputs = new ArrayList<>();
    try (DecodeStream stream = session.decode()) {
      for (int i = from; i < to; i++) {
        for (int layer = 0; layer < LAYERS; layer++) {
          fault.at(i, layer);
          float[] output = new float[Q_ROW];
          var _ = model.step(stream, layer, TOKENS + i, queries[i][layer], output);
          outputs.add(output);
        }
      }
    }
    return outputs;
  }

  private static void requireSame(List<float[]> actual, List<float[]> expected, int from) {
    assertThat(actual).hasSize(expected.size() - from);
    for (int i = 0; i < actual.size(); i++) {
      assertThat(actual.get(i)).as("output %d", from + i).isEqualTo(expected.get(from + i));
    }
  }

  /** In mid-step: one layer has the step's token already, the other has not. */
  @Test
  void outputsAreBitIdenticalWhenTheWorkerIsKilledInMidStep() throws Exception {
    start(1, 2, new String[0]);
    cluster.awaitRehearsals();
    Synthetic model = new Synthetic(21, TOKENS_MAX);
    float[][][] queries = queries(model);
    KvSession session = client.open(options());
    model.prefill(session, TOKENS);
    KvSession control = session.fork();
    List<float[]> expected = decode(model, control, queries, 0, STEPS, (step, layer) -> {});
    control.close();
    long[] killedNs = {0, 0};
    List<float[]> outputs =
        decode(
            model,
            session,
            queries,
            0,
            STEPS,
            (step, layer) -> {
              if (step == 30 && layer == 1) {
                cluster.killWorker(session.info().getWorkerTarget());
                killedNs[0] = System.nanoTime();
              }
              if (step == 31 && layer == 0) {
                killedNs[1] = System.nanoTime();
              }
            });
    requireSame(outputs, expected, 0);
    double withoutMs = (killedNs[1] - killedNs[0]) / 1e6;
    System.out.printf("worker killed: %.0f ms without service%n", withoutMs);
    assertThat(withoutMs).isLessThan(3000);
    assertThat(session.info().getEpoch()).isEqualTo(2);
    session.close();
  }

  /** A prompt half sent, its layers one after the other, is sent on to another worker. */
  @Test
  void aPrefillGoesOnAtAnotherWorker() throws Exception {
    start(1, 2);
    Synthetic model = new Synthetic(22, TOKENS_MAX);
    float[][][] queries = queries(model);
    List<float[]> expected = faultFree(model, queries);
    KvSession session = client.open(options());
    try (PrefillStream stream = session.prefill()) {
      for (int layer = 0; layer < LAYERS; layer++) {
        for (int at = 0; at < TOKENS; at += 250) {
          stream.chunk(
              layer, at, 250, model.keys(layer, at, at + 250), model.values(layer, at, at + 250));
          if (layer == 1 && at == 250) {
            cluster.killWorker(session.info().getWorkerTarget());
          }
        }
      }
      var _ = stream.finish(TOKENS);
    }
    requireSame(decode(model, session, queries, 0, STEPS, (step, layer) -> {}), expected, 0);
    session.close();
  }

  /** What no tier had yet is sent again. */
  @Test
  void aWorkerMayDieAheadOfItsPages() throws Exception {
    start(1, 2);
    Synthetic model = new Synthetic(26, TOKENS_MAX);
    float[][][] queries = queries(model);
    List<float[]> expected = faultFree(model, queries);
    KvSession session = client.open(options());
    try (PrefillStream stream = session.prefill()) {
      for (int layer = 0; layer < LAYERS; layer++) {
        stream.chunk(
            layer, 0, TOKENS, model.keys(layer, 0, TOKENS), model.values(layer, 0, TOKENS));
      }
      var _ = stream.finishAhead(TOKENS);
    }
    cluster.killWorker(session.info().getWorkerTarget());
    requireSame(decode(model, session, queries, 0, STEPS, (step, layer) -> {}), expected, 0);
    assertThat(session.info().getEpoch()).isEqualTo(2);
    session.close();
  }

  /** With one copy, a tier's death takes pages along; the engine computes them again. */
  @Test
  void pagesThatNoTierHasAreComputedAgain() throws Exception {
    start(1, 1);
    Synthetic model = new Synthetic(23, TOKENS_MAX);
    float[][][] queries = queries(model);
    KvSession session = client.open(options());
    model.prefill(session, TOKENS);
    KvSession control = session.fork();
    List<float[]> expected = decode(model, control, queries, 0, STEPS, (step, layer) -> {});
    control.close();
    cluster.killTier("tier-0");
    cluster.startTier("tier-1");
    assertThatThrownBy(() -> decode(model, session, queries, 0, STEPS, (step, layer) -> {}))
        .isInstanceOfSatisfying(
            KvtierException.class, e -> assertThat(e.code()).as("%s", e).isEqualTo(Code.LOST));
    List<TokenRange> recomputed = new ArrayList<>();
    session.recomputeWith((missing, repairs) -> {
      for (TokenRange range : missing) {
        int layer = range.getLayer();
        int from = range.getPosition();
        int to = from + range.getTokens();
        repairs.chunk(
            layer, from, to - from, model.keys(layer, from, to), model.values(layer, from, to));
      }
      recomputed.addAll(missing);
    });
    requireSame(decode(model, session, queries, 0, STEPS, (step, layer) -> {}), expected, 0);
    assertThat(recomputed).hasSize(LAYERS);
    session.close();
  }

  /** Only what was durable is left, on disk; the engine sends what follows again. */
  @Test
  void aSessionComesBackAfterEverythingWasStartedAgain() throws Exception {
    start(1, 1);
    Synthetic model = new Synthetic(24, TOKENS_MAX);
    float[][][] queries = queries(model);
    KvSession session = client.open(options());
    model.prefill(session, TOKENS);
    KvSession control = session.fork();
    List<float[]> expected = decode(model, control, queries, 0, STEPS, (step, layer) -> {});
    control.close();
    // So far that the last stored page is the last that has left the window.
    int done = 24;
    var _ = decode(model, session, queries, 0, done, (step, layer) -> {});
    Session before = client.get(session.info().getSessionId());
    cluster.stopAll();
    cluster.startCoordinator("c0");
    cluster.startTier("tier-0");
    var _ = cluster.startWorker();
    KvSession again = client.resume(before);
    int durable = (TOKENS + done - 64) / 64 * 64;
    int end = TOKENS + done;
    try (PrefillStream stream = again.prefill()) {
      for (int layer = 0; layer < LAYERS; layer++) {
        assertThat(again.layerTokens(layer)).isEqualTo(durable);
        stream.chunk(
            layer,
            durable,
            end - durable,
            model.keys(layer, durable, end),
            model.values(layer, durable, end));
      }
      var _ = stream.finish(end);
    }
    requireSame(
        decode(model, again, queries, done, STEPS, (step, layer) -> {}), expected, done * LAYERS);
    again.close();
  }

  @Test
  void whoeverResumesASessionFencesItsFormerUser() throws Exception {
    start(1, 1);
    Synthetic model = new Synthetic(25, TOKENS_MAX);
    float[][][] queries = queries(model);
    KvSession session = client.open(options());
    model.prefill(session, TOKENS);
    try (DecodeStream old = session.decode()) {
      float[] output = new float[Q_ROW];
      var _ = model.step(old, 0, TOKENS, queries[0][0], output);
      KvSession taken = client.resume(session.info());
      assertThat(taken.layerTokens(0)).isEqualTo(TOKENS + 1);
      assertThat(taken.layerTokens(1)).isEqualTo(TOKENS);
      assertThatThrownBy(() -> model.step(old, 1, TOKENS, queries[0][1], output))
          .isInstanceOfSatisfying(
              KvtierException.class,
              e -> assertThat(e.code()).as("%s", e).isEqualTo(Code.PRECONDITION));
      try (DecodeStream stream = taken.decode()) {
        // Sent again: recognized, and not appended twice.
        var _ = model.step(stream, 0, TOKENS, queries[0][0], output);
        var _ = model.step(stream, 1, TOKENS, queries[0][1], output);
        var _ = model.step(stream, 0, TOKENS + 1, queries[1][0], output);
      }
      taken.close();
    }
  }
}
