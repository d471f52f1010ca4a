package io.kvtier.integration;

import static io.kvtier.integration.Synthetic.LAYERS;
import static io.kvtier.integration.Synthetic.Q_ROW;
import static org.assertj.core.api.Assertions.assertThat;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.client.DecodeStream;
import io.kvtier.client.KvSession;
import io.kvtier.client.KvtierClient;
import io.kvtier.client.SessionOptions;
import io.kvtier.rpc.Closing;
import io.kvtier.v1.DecodeResponse;
import io.kvtier.v1.HeadClass;
import io.kvtier.v1.LoadResponse;
import io.kvtier.v1.Plan;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.TimeUnit;
import java.util.function.Supplier;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** A session whose pages are on two cache tiers, each a process, one of which is killed. */
@Timeout(value = 150, unit = TimeUnit.SECONDS)
class ReplicasIT {
  private static final int TOKENS = 2000;
  private static final int TOKENS_MAX = 2200;

  /** Tokens that are in pages once the prefill is finished; the window holds the others. */
  private static final int PAGED = 30 * 64;

  private static final int STEPS = 90;
  private static final Duration TIMEOUT = Duration.ofSeconds(20);
  private static final Duration RECOVERY_MAX = Duration.ofSeconds(60);

  /** A tier's death makes no step wait much longer. */
  private static final Duration STEP_MAX = Duration.ofSeconds(3);

  /** Its lease runs for 15 s, but nobody listens where it was. */
  private static final Duration REMOVED_WITHIN = Duration.ofSeconds(8);

  @TempDir private Path data;

  private final Closing started = new Closing();
  private final List<ServiceProcess> tiers = new ArrayList<>();

  @SuppressWarnings("NullAway.Init") // Started before each test.
  private ServiceProcess worker;

  @SuppressWarnings("NullAway.Init")
  private KvtierClient client;

  private static final String SECOND_HOMES = "kvtier_worker_replica_hits_total{rank=\"1\"}";

  @BeforeEach
  void start() throws Exception {
    String coordinator = started.add(new ServiceProcess("coordinator")).target;
    for (String id : List.of("tier-1", "tier-2")) {
      tiers.add(
          started.add(
              new ServiceProcess(
                  "cache-tier",
                  "--coordinator=" + coordinator,
                  "--node-id=" + id,
                  "--tier-bytes=64m",
                  // Its files would serve on after its death.
                  "--no-files",
                  "--data=" + data.resolve(id))));
    }
    worker =
        started.add(
            new ServiceProcess(
                "gpu-worker",
                "--no-rehearsal",
                "--coordinator=" + coordinator,
                "--node-id=worker-1",
                "--device-bytes=64m",
                "--replicas=2"));
    client = started.add(KvtierClient.connect(coordinator, TIMEOUT));
  }

  @AfterEach
  void endAll() {
    started.close();
  }

  /**
   * Every sparse head fetches what it attends to, since there is no hot set: what happens to be in
   * one is attended first, and sums of another order are rounded otherwise. Failures come as they
   * are: nothing is kept to go on by itself.
   */
  private KvSession open() {
    Plan plan = Synthetic.plan(HeadClass.HEAD_CLASS_SPARSE, 1024, 0);
    return client.open(
        new SessionOptions(Synthetic.geometry(), TOKENS_MAX, 0, Optional.of(plan))
            .withReplayBytesMax(0));
  }

  /** Decodes one token of all layers; a step that is refused as UNAVAILABLE is sent again. */
  private static void step(
      Synthetic model, KvSession session, int position, float[][] queries, List<float[]> outputs) {
    for (int layer = 0; layer < LAYERS; layer++) {
      float[] output = new float[Q_ROW];
      float[] query = queries[layer];
      int at = layer;
      DecodeResponse response =
          eventually(() -> {
            try (DecodeStream stream = session.decode()) {
              return model.step(stream, at, position, query, output);
            }
          });
      assertThat(response.getPosition()).isEqualTo(position);
      outputs.add(output);
    }
  }

  /** Sends a call again, as UNAVAILABLE allows, until it is served. */
  private static <T> T eventually(Supplier<T> call) {
    long deadlineNs = System.nanoTime() + RECOVERY_MAX.toNanos();
    while (true) {
      try {
        return call.get();
      } catch (KvtierException e) {
        assertThat(e.code()).as("%s", e).isEqualTo(Code.UNAVAILABLE);
        assertThat(System.nanoTime()).as("still %s", e.getMessage()).isLessThan(deadlineNs);
      }
    }
  }

  @Test
  void outputsAreBitIdenticalWhenOneOfTwoTiersIsKilled() throws Exception {
    Synthetic model = new Synthetic(21, TOKENS_MAX);
    float[][][] queries = new float[STEPS][LAYERS][];
    for (float[][] layers : queries) {
      for (int layer = 0; layer < LAYERS; layer++) {
        layers[layer] = model.query();
      }
    }
    KvSession session = open();
    model.prefill(session, TOKENS);
    KvSession control = session.fork();
    List<float[]> expected = new ArrayList<>();
    for (int i = 0; i < STEPS; i++) {
      step(model, control, TOKENS + i, queries[i], expected);
    }
    List<LoadResponse> rows = session.load(0, 0, PAGED);
    requireThatBothServed();
    double secondHomes = metric(SECOND_HOMES);
    List<float[]> outputs = new ArrayList<>();
    // Some pages fill up on the way, before and after the death of a tier.
    long killedNs = 0;
    long longestNs = 0;
    for (int i = 0; i < STEPS; i++) {
      if (i == 20) {
        tiers.getFirst().kill();
        killedNs = System.nanoTime();
      }
      long startNs = System.nanoTime();
      step(model, session, TOKENS + i, queries[i], outputs);
      longestNs = Math.max(longestNs, System.nanoTime() - startNs);
    }
    assertThat(Duration.ofNanos(longestNs)).as("longest step").isLessThan(STEP_MAX);
    for (int i = 0; i < expected.size(); i++) {
      assertThat(outputs.get(i)).as("output %d", i).isEqualTo(expected.get(i));
    }
    assertThat(session.load(0, 0, PAGED)).isEqualTo(rows);
    // Pages of the last steps are promised two copies while there are two members, and wait as long
    // as the dead one is one of them.
    while (metric("kvtier_worker_replica_short_acks_total") == 0) {
      assertThat(Duration.ofNanos(System.nanoTime() - killedNs))
          .as("without two tiers")
          .isLessThan(REMOVED_WITHIN);
      TimeUnit.MILLISECONDS.sleep(20);
    }
    // By fail-over, or at once where a put had met the dead tier before.
    assertThat(metric(SECOND_HOMES)).isGreaterThan(secondHomes);
    control.close();
    session.close();
  }

  private void requireThatBothServed() throws Exception {
    for (ServiceProcess tier : tiers) {
      assertThat(tier.metric("kvtier_tier_hits_pages_total")).isPositive();
    }
    assertThat(metric("kvtier_worker_replica_fail_overs_total")).isZero();
    assertThat(metric("kvtier_worker_replica_hits_total{rank=\"0\"}")).isPositive();
  }

  private double metric(String name) throws Exception {
    return worker.metric(name);
  }
}
