package io.kvtier.integration;

import static io.kvtier.integration.Synthetic.HEAD_DIM;
import static io.kvtier.integration.Synthetic.KV_HEADS;
import static io.kvtier.integration.Synthetic.KV_ROW;
import static io.kvtier.integration.Synthetic.LAYERS;
import static io.kvtier.integration.Synthetic.Q_HEADS;
import static io.kvtier.integration.Synthetic.Q_ROW;
import static io.kvtier.integration.Synthetic.relativeError;
import static org.assertj.core.api.Assertions.assertThat;

import io.kvtier.cachetier.CacheTierConfig;
import io.kvtier.client.DecodeStream;
import io.kvtier.client.KvSession;
import io.kvtier.client.KvtierClient;
import io.kvtier.client.SessionOptions;
import io.kvtier.coordinator.CoordinatorConfig;
import io.kvtier.deploy.service.AllInOne;
import io.kvtier.rpc.EndpointConfig;
import io.kvtier.rpc.Tensors;
import io.kvtier.v1.GatheredHead;
import io.kvtier.v1.Geometry;
import io.kvtier.v1.HeadClass;
import io.kvtier.v1.PlanMode;
import java.time.Duration;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;
import java.util.stream.IntStream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/** Sessions whose pages have eight bits an element, through coordinator, worker and tier. */
class FinerIT {
  private static final int PROMPT = 1500;
  private static final int STEPS = 90;
  private static final int TOKENS_MAX = PROMPT + STEPS;

  private static AllInOne service;
  private static KvtierClient client;

  @BeforeAll
  static void start() {
    service =
        AllInOne.start(
            CoordinatorConfig.defaults(),
            new CacheTierConfig(EndpointConfig.loopback(), 256L << 20, Optional.empty()),
            256L << 20);
    client = KvtierClient.connect(service.coordinator().target());
  }

  @AfterAll
  static void stop() {
    client.close();
    service.close();
  }

  private static Geometry geometry(int codeBits) {
    return Synthetic.geometry().toBuilder().setCodeBits(codeBits).build();
  }

  private static SessionOptions options(int codeBits, HeadClass headClass) {
    return new SessionOptions(
        geometry(codeBits),
        TOKENS_MAX,
        0,
        Optional.of(Synthetic.plan(headClass, 256, 1 << 18)),
        PlanMode.PLAN_MODE_KVTIER);
  }

  /** Queries that are near to some token's key: few tokens have most of the mass. */
  private static float[] query(Synthetic model, int layer, int step) {
    float[] query = new float[Q_ROW];
    for (int q = 0; q < Q_HEADS; q++) {
      int token = 100 + (step * 131 + q * 37 + layer) % (PROMPT - 300);
      int at = token * KV_ROW + q / (Q_HEADS / KV_HEADS) * HEAD_DIM;
      double norm = 0;
      for (int i = 0; i < HEAD_DIM; i++) {
        norm += model.keys[layer][at + i] * model.keys[layer][at + i];
      }
      for (int i = 0; i < HEAD_DIM; i++) {
        query[q * HEAD_DIM + i] =
            (float) (10 * Math.sqrt(HEAD_DIM) / norm * model.keys[layer][at + i]);
      }
    }
    return query;
  }

  /** Mean error of all steps, and the last outputs, by layer. */
  private static double decode(Synthetic model, KvSession session, float[][] last) {
    double sum = 0;
    try (DecodeStream stream = session.decode()) {
      for (int step = 0; step < STEPS; step++) {
        for (int layer = 0; layer < LAYERS; layer++) {
          float[] output = new float[Q_ROW];
          float[] query = query(model, layer, step);
          var _ = model.step(stream, layer, PROMPT + step, query, output);
          sum += relativeError(output, model.exact(layer, PROMPT + step + 1, query));
          last[layer] = output;
        }
      }
    }
    return sum / STEPS / LAYERS;
  }

  @ParameterizedTest
  @EnumSource(
      value = HeadClass.class,
      names = {"HEAD_CLASS_DENSE", "HEAD_CLASS_SPARSE", "HEAD_CLASS_STREAMED"})
  void outputsAreFinerAndForksAnswerAlike(HeadClass headClass) {
    Synthetic model = new Synthetic(5, TOKENS_MAX);
    double[] errors = new double[2];
    for (int finer = 0; finer < 2; finer++) {
      try (KvSession session = client.open(options(4 + 4 * finer, headClass))) {
        var _ = model.prefill(session, PROMPT);
        float[][] ofFork = new float[LAYERS][];
        float[][] own = new float[LAYERS][];
        try (KvSession fork = session.fork()) {
          errors[finer] = decode(model, fork, ofFork);
        }
        var _ = decode(model, session, own);
        assertThat(own).isDeepEqualTo(ofFork);
      }
    }
    assertThat(errors[1]).as("of %s", errors[0]).isLessThan(errors[0] / 3);
  }

  /** What engines get that attend themselves: rows by all eight bits. */
  @ParameterizedTest
  @EnumSource(
      value = HeadClass.class,
      names = {"HEAD_CLASS_DENSE", "HEAD_CLASS_SPARSE", "HEAD_CLASS_STREAMED"})
  void rowsThatAreGivenBackAreFiner(HeadClass headClass) {
    Synthetic model = new Synthetic(6, TOKENS_MAX);
    try (KvSession session = client.open(options(8, headClass))) {
      var _ = model.prefill(session, PROMPT);
      Synthetic loaded = model.withRows(session, PROMPT);
      assertThat(relativeError(loaded.keys[1], model.keys[1])).isLessThan(.02);
      assertThat(relativeError(loaded.values[1], model.values[1])).isLessThan(.02);
      List<GatheredHead> heads = session.gather(1, query(model, 1, 3), 200);
      for (int head = 0; head < KV_HEADS; head++) {
        GatheredHead rows = heads.get(head);
        int n = rows.getPositionsCount();
        float[] keys = Tensors.toFloats("keys", rows.getKeys(), n, HEAD_DIM);
        float[] values = Tensors.toFloats("values", rows.getValues(), n, HEAD_DIM);
        assertThat(n).isEqualTo(200);
        for (int i = 0; i < n; i++) {
          int at = rows.getPositions(i) * KV_ROW + head * HEAD_DIM;
          float[] key = Arrays.copyOfRange(keys, i * HEAD_DIM, (i + 1) * HEAD_DIM);
          float[] value = Arrays.copyOfRange(values, i * HEAD_DIM, (i + 1) * HEAD_DIM);
          assertThat(relativeError(key, of(model.keys[1], at))).isLessThan(.06);
          assertThat(relativeError(value, of(model.values[1], at))).isLessThan(.06);
        }
      }
    }
  }

  private static float[] of(float[] rows, int at) {
    return Arrays.copyOfRange(rows, at, at + HEAD_DIM);
  }

  @Test
  void aPromptIsReusedByTheSameBitsAlone() throws InterruptedException {
    Synthetic model = new Synthetic(7, TOKENS_MAX);
    List<Integer> ids = IntStream.range(40_000, 40_000 + PROMPT).boxed().toList();
    try (KvSession session =
        client.open(SessionOptions.of(geometry(8), TOKENS_MAX).withTokenIds(ids))) {
      var _ = model.prefill(session, PROMPT);
      long deadlineNs = System.nanoTime() + Duration.ofSeconds(20).toNanos();
      while (client.lookupPrefix(geometry(8), ids) < 1408) {
        assertThat(System.nanoTime()).isLessThan(deadlineNs);
        Thread.sleep(10);
      }
    }
    assertThat(client.lookupPrefix(geometry(4), ids)).isZero();
    try (KvSession coarser =
            client.open(SessionOptions.of(geometry(4), TOKENS_MAX).withTokenIds(ids));
        KvSession same =
            client.open(SessionOptions.of(geometry(8), TOKENS_MAX).withTokenIds(ids))) {
      assertThat(coarser.reusedTokens()).isZero();
      assertThat(same.reusedTokens()).isEqualTo((PROMPT - 64) / 64 * 64);
    }
  }
}
