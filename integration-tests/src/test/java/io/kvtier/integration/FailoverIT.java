package io.kvtier.integration;

import static io.kvtier.integration.Synthetic.KV_HEADS;
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
import io.kvtier.deploy.cases.CaseGenerator;
import io.kvtier.deploy.cases.EvalCase;
import io.kvtier.deploy.cases.Task;
import io.kvtier.deploy.demo.PromptStream;
import io.kvtier.deploy.engine.AttentionBackend;
import io.kvtier.deploy.engine.Decoder;
import io.kvtier.deploy.engine.FullKvCache;
import io.kvtier.deploy.engine.LlamaModel;
import io.kvtier.deploy.engine.Prefill;
import io.kvtier.deploy.engine.Tokenizer;
import io.kvtier.rpc.Closing;
import io.kvtier.v1.HeadClass;
import io.kvtier.v1.HeadPlan;
import io.kvtier.v1.Plan;
import io.kvtier.v1.Session;
import io.kvtier.v1.TokenRange;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.SplittableRandom;
import java.util.TreeMap;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.LockSupport;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** Sessions whose worker, tier or everything is killed go on as if nothing had happened. */
@Timeout(value = 30, unit = TimeUnit.MINUTES)
class FailoverIT {
  private static final int TOKENS = 1000;
  private static final int TOKENS_MAX = 1400;
  private static final int STEPS = 40;
  private static final int PROMPT = 1024;
  private static final int GENERATED = 80;
  private static final Duration TIMEOUT = Duration.ofSeconds(40);

  /** Rounds of decodes of the shipped model, each with one kill. */
  private static final int ROUNDS = Integer.getInteger("kvtier.failover.rounds", 4);

  private static final long SEED = Long.getLong("kvtier.failover.seed", 7);

  @TempDir private Path data;

  private final Closing started = new Closing();
  private final Map<String, ServiceProcess> tiers = new TreeMap<>();
  private final Map<String, ServiceProcess> workers = new TreeMap<>();
  private int names;

  @SuppressWarnings("NullAway.Init")
  private ServiceProcess coordinator;

  @SuppressWarnings("NullAway.Init")
  private StandInSessions sessions;

  @SuppressWarnings("NullAway.Init")
  private KvtierClient client;

  private void start(int tierCount, int workerCount, int replicas) throws Exception {
    coordinator = started.add(new ServiceProcess("coordinator"));
    for (int i = 0; i < tierCount; i++) {
      startTier("tier-" + i, data.resolve("tier-" + i));
    }
    for (int i = 0; i < workerCount; i++) {
      startWorker(replicas);
    }
    sessions = started.add(new StandInSessions(coordinator.target));
    client = started.add(KvtierClient.connect(sessions.target(), TIMEOUT));
  }

  private void startTier(String id, Path directory) throws Exception {
    tiers.put(
        id,
        started.add(
            new ServiceProcess(
                "cache-tier",
                "--coordinator=" + coordinator.target,
                "--node-id=" + id,
                "--tier-bytes=64m",
                // Its files would serve on after its death.
                "--no-files",
                "--data=" + directory)));
  }

  private void startWorker(int replicas) throws Exception {
    ServiceProcess worker =
        started.add(
            new ServiceProcess(
                "gpu-worker",
                "--coordinator=" + coordinator.target,
                "--node-id=worker-" + names++,
                "--device-bytes=64m",
                "--replicas=" + replicas));
    workers.put(worker.target, worker);
  }

  @AfterEach
  void endAll() {
    started.close();
  }

  private static SessionOptions options() {
    Plan.Builder plan = Plan.newBuilder().setDominantTokensMin(64).setHotSetBytes(0);
    for (int i = 0; i < LAYERS * KV_HEADS; i++) {
      plan.addHeads(
          HeadPlan.newBuilder()
              .setLayer(i / KV_HEADS)
              .setKvHead(i % KV_HEADS)
              .setHeadClass(HeadClass.HEAD_CLASS_SPARSE)
              .setDominantTokensMax(1024)
              .setResidualMass(.01f));
    }
    return new SessionOptions(Synthetic.geometry(), TOKENS_MAX, 0, Optional.of(plan.build()));
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
    start(1, 2, 1);
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
                kill(workers, session.info().getWorkerTarget());
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

  private static void kill(Map<String, ServiceProcess> of, String key) throws Exception {
    Objects.requireNonNull(of.remove(key), key).kill();
  }

  /** A prompt half sent, its layers one after the other, is sent on to another worker. */
  @Test
  void aPrefillGoesOnAtAnotherWorker() throws Exception {
    start(1, 2, 1);
    Synthetic model = new Synthetic(22, TOKENS_MAX);
    float[][][] queries = queries(model);
    KvSession control = client.open(options());
    model.prefill(control, TOKENS);
    List<float[]> expected = decode(model, control, queries, 0, STEPS, (step, layer) -> {});
    control.close();
    KvSession session = client.open(options());
    try (PrefillStream stream = session.prefill()) {
      for (int layer = 0; layer < LAYERS; layer++) {
        for (int at = 0; at < TOKENS; at += 250) {
          stream.chunk(
              layer, at, 250, model.keys(layer, at, at + 250), model.values(layer, at, at + 250));
          if (layer == 1 && at == 250) {
            kill(workers, session.info().getWorkerTarget());
          }
        }
      }
      var _ = stream.finish(TOKENS);
    }
    requireSame(decode(model, session, queries, 0, STEPS, (step, layer) -> {}), expected, 0);
    session.close();
  }

  /** With one copy, a tier's death takes pages along; the engine computes them again. */
  @Test
  void pagesThatNoTierHasAreComputedAgain() throws Exception {
    start(1, 1, 1);
    Synthetic model = new Synthetic(23, TOKENS_MAX);
    float[][][] queries = queries(model);
    KvSession session = client.open(options());
    model.prefill(session, TOKENS);
    KvSession control = session.fork();
    List<float[]> expected = decode(model, control, queries, 0, STEPS, (step, layer) -> {});
    control.close();
    kill(tiers, "tier-0");
    startTier("tier-1", data.resolve("tier-1"));
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
    start(1, 1, 1);
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
    workers.values().iterator().next().close();
    Objects.requireNonNull(tiers.get("tier-0")).close();
    coordinator.close();
    coordinator = started.add(new ServiceProcess("coordinator"));
    sessions.follow(coordinator.target);
    startTier("tier-0", data.resolve("tier-0"));
    startWorker(1);
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
    start(1, 1, 1);
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

  /** Attention through a session, with one kill on the way. */
  private final class KilledBackend implements AttentionBackend {
    private final DecodeStream stream;
    private final KvSession session;
    private final int faultPosition;
    private final int faultLayer;
    private final long delayNs;
    private final boolean ofWorker;
    private long longestNs;

    KilledBackend(
        KvSession session, int faultPosition, int faultLayer, long delayNs, boolean ofWorker) {
      this.session = session;
      this.stream = session.decode();
      this.faultPosition = faultPosition;
      this.faultLayer = faultLayer;
      this.delayNs = delayNs;
      this.ofWorker = ofWorker;
    }

    @Override
    public void attend(
        int layer,
        int position,
        int tokens,
        float[] queries,
        float[] keys,
        float[] values,
        float[] hint,
        float[] output) {
      Thread killer = null;
      if (layer == faultLayer && position == faultPosition) {
        killer = Thread.ofVirtual().start(this::kill);
      }
      long startNs = System.nanoTime();
      var _ = stream.step(layer, position, tokens, queries, keys, values, hint, output);
      longestNs = Math.max(longestNs, System.nanoTime() - startNs);
      if (killer != null) {
        try {
          killer.join();
        } catch (InterruptedException e) {
          throw new IllegalStateException(e);
        }
      }
    }

    private void kill() {
      LockSupport.parkNanos(delayNs);
      try {
        if (ofWorker) {
          FailoverIT.kill(workers, session.info().getWorkerTarget());
        } else {
          FailoverIT.kill(tiers, tiers.keySet().iterator().next());
        }
      } catch (Exception e) {
        throw new IllegalStateException(e);
      }
    }
  }

  @Test
  void decodesOfTheShippedModelFinishWithTheTokensOfTheFaultFreeRun() throws Exception {
    start(2, 2, 2);
    Path home = Path.of(System.getProperty("kvtier.home"), "deploy", "model");
    LlamaModel model = LlamaModel.load(home);
    SplittableRandom random = new SplittableRandom(SEED);
    System.out.printf("%d rounds of seed %d%n", ROUNDS, SEED);
    EvalCase text =
        new CaseGenerator(Tokenizer.read(home).orElseThrow()).generate(Task.MULTIKEY, PROMPT, SEED);
    int[] prompt = text.contextIds();
    int tokens = prompt.length;
    double workerMs = 0;
    double tierMs = 0;
    try (Decoder decoder = new Decoder(model, 1)) {
      FullKvCache cache = new FullKvCache(model.config());
      Prefill prefill = decoder.prefill(cache, prompt, 32, (done, of) -> {});
      int first = Decoder.argmax(prefill.logits(), 0, model.config().vocabSize());
      KilledBackend none = open(model, cache, prefill, -1, 0, 0, true);
      int[] expected = decoder.greedy(none, tokens, new int[] {first}, GENERATED);
      none.session.close();
      for (int round = 0; round < ROUNDS; round++) {
        boolean ofWorker = round % 2 == 0;
        int position = tokens + random.nextInt(GENERATED - 1);
        int layer = random.nextInt(model.config().layers());
        long delayNs = random.nextLong(2_000_000);
        KilledBackend killed = open(model, cache, prefill, position, layer, delayNs, ofWorker);
        int[] actual = decoder.greedy(killed, tokens, new int[] {first}, GENERATED);
        double ms = killed.longestNs / 1e6;
        System.out.printf(
            "round %d: %s killed at position %d, layer %d: longest step %.0f ms%n",
            round, ofWorker ? "worker" : "tier", position, layer, ms);
        assertThat(actual).as("round %d of seed %d", round, SEED).isEqualTo(expected);
        killed.session.close();
        if (ofWorker) {
          workerMs = Math.max(workerMs, ms);
          startWorker(2);
        } else {
          tierMs = Math.max(tierMs, ms);
          String id = tiers.containsKey("tier-0") ? "tier-1" : "tier-0";
          startTier(id, data.resolve(id));
        }
      }
    }
    System.out.printf(
        "longest time without service: worker %.0f ms, tier %.0f ms%n", workerMs, tierMs);
    assertThat(workerMs).isLessThan(3000);
  }

  private KilledBackend open(
      LlamaModel model,
      FullKvCache cache,
      Prefill prefill,
      int position,
      int layer,
      long delayNs,
      boolean ofWorker) {
    KvSession session =
        client.open(
            SessionOptions.of(PromptStream.geometry(model), cache.tokens() + GENERATED + 1));
    var _ = PromptStream.send(session, cache, prefill);
    return new KilledBackend(session, position, layer, delayNs, ofWorker);
  }
}
