package io.kvtier.integration;

import static io.kvtier.integration.Synthetic.KV_HEADS;
import static io.kvtier.integration.Synthetic.LAYERS;
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
import io.kvtier.v1.DecodeResponse;
import io.kvtier.v1.Dtype;
import io.kvtier.v1.GatheredHead;
import io.kvtier.v1.HeadClass;
import io.kvtier.v1.LoadResponse;
import io.kvtier.v1.Plan;
import io.kvtier.v1.PrefillResponse;
import io.kvtier.v1.Tensor;
import java.util.HashSet;
import java.util.List;
import java.util.Optional;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

/** Sessions through the public client, over real gRPC and a real Chronicle Map. */
class SessionIT {
  private static AllInOne service;
  private static KvtierClient client;

  /** Pairs that the last step found on the device. */
  private int hits;

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

  static Plan plan(HeadClass headClass, int tokensMax) {
    return Synthetic.plan(headClass, tokensMax, 1 << 20);
  }

  @Test
  void denseHeadsDecodeWithinTheCodecsErrorAcrossPageBoundaries() {
    Synthetic model = new Synthetic(1, 1200);
    SessionOptions options =
        new SessionOptions(
            Synthetic.geometry(), 1200, 0, Optional.of(plan(HeadClass.HEAD_CLASS_DENSE, 0)));
    try (KvSession session = client.open(options)) {
      model.prefill(session, 1000);
      requireOracleOfLoadedRows(model, session, 1000);
      assertThat(decode(model, session, 1000, 1200, .25)).isZero();
    }
  }

  @Test
  void sparseHeadsFetchWhatDominatesAndEstimateTheRest() {
    Synthetic model = new Synthetic(2, 2050);
    SessionOptions options = SessionOptions.of(Synthetic.geometry(), 2100);
    try (KvSession session = client.open(options)) {
      PrefillResponse finished = model.prefill(session, 2000);
      assertThat(finished.getPlan().getHeadsCount()).isEqualTo(LAYERS * KV_HEADS);
      assertThat(finished.getDurableTokens()).isEqualTo(30 * 64);
      assertThat(decode(model, session, 2000, 2050, .35)).isPositive();
    }
  }

  /** An engine may let go of rows as soon as a chunk's answer says that they are stored. */
  @Test
  void answersToChunksSayWhatOfTheirLayerIsStored() throws Exception {
    Synthetic model = new Synthetic(7, 900);
    try (Loopback at = new Loopback();
        KvSession session = at.client.open(SessionOptions.of(Synthetic.geometry(), 900))) {
      int sent = 0;
      int durable = 0;
      // The first chunk's pages are stored beside chunks of a token, which take some 20 s in all.
      for (int count = 500; durable < 6 * 64 && sent < 900; count = 1) {
        if (sent > 0) {
          Thread.sleep(50);
        }
        PrefillResponse answer =
            at.prefill(Quartet.open(session), Quartet.chunk(0, sent, rows(model, sent, count)));
        sent += count;
        assertThat(answer.getReceivedTokens()).isEqualTo(sent);
        assertThat(answer.getLayer()).isZero();
        assertThat(answer.getDurableTokens()).isBetween(durable, (sent - 64) / 64 * 64);
        durable = answer.getDurableTokens();
      }
      assertThat(durable).isGreaterThanOrEqualTo(6 * 64);
      PrefillResponse other =
          at.prefill(Quartet.open(session), Quartet.chunk(1, 0, rows(model, 0, 1)));
      assertThat(other.getLayer()).isEqualTo(1);
      assertThat(other.getDurableTokens()).as("nothing of layer 1").isZero();
    }
  }

  private static Tensor rows(Synthetic model, int from, int count) {
    return Tensors.of(
        Dtype.DTYPE_FP32, model.keys(0, from, from + count), count, KV_HEADS, Synthetic.HEAD_DIM);
  }

  @Test
  void everyChosenTokenMeansNoMoreThanTheCodecsError() {
    Synthetic model = new Synthetic(3, 900);
    SessionOptions options =
        new SessionOptions(
            Synthetic.geometry(), 900, 0, Optional.of(plan(HeadClass.HEAD_CLASS_SPARSE, 900)));
    try (KvSession session = client.open(options)) {
      model.prefill(session, 890);
      requireOracleOfLoadedRows(model, session, 890);
      decode(model, session, 890, 900, .25);
    }
  }

  /**
   * One step's output is plain attention over the rows that the service gives back; bf16 rounds
   * those.
   */
  private static void requireOracleOfLoadedRows(Synthetic model, KvSession session, int tokens) {
    Synthetic loaded = model.withRows(session, tokens);
    try (KvSession fork = session.fork();
        DecodeStream stream = fork.decode()) {
      for (int layer = 0; layer < LAYERS; layer++) {
        float[] query = model.query();
        float[] output = new float[Q_ROW];
        model.step(stream, layer, tokens, query, output);
        assertThat(relativeError(output, loaded.exact(layer, tokens + 1, query))).isLessThan(.02);
      }
    }
  }

  /** Decodes tokens of all layers, requires the mean error, returns fetched pairs. */
  private static long decode(
      Synthetic model, KvSession session, int from, int to, double errorMax) {
    double error = 0;
    long used = 0;
    try (DecodeStream stream = session.decode()) {
      for (int position = from; position < to; position++) {
        for (int layer = 0; layer < LAYERS; layer++) {
          float[] query = model.query();
          float[] output = new float[Q_ROW];
          DecodeResponse response = model.step(stream, layer, position, query, output);
          error += relativeError(output, model.exact(layer, position + 1, query));
          used += response.getStats().getSectionsFetched();
          assertThat(response.getLse().getShapeList()).containsExactly(1, Synthetic.Q_HEADS);
        }
      }
    }
    assertThat(error / ((to - from) * LAYERS)).isLessThan(errorMax);
    return used;
  }

  @Test
  void aStepOfManyTokensGivesWhatStepsOfOneGive() {
    Synthetic model = new Synthetic(4, 500);
    try (KvSession session = client.open(SessionOptions.of(Synthetic.geometry(), 500))) {
      model.prefill(session, 450);
      float[] queries = new float[20 * Q_ROW];
      float[] singles = new float[20 * Q_ROW];
      float[] together = new float[20 * Q_ROW];
      try (KvSession fork = session.fork();
          DecodeStream stream = fork.decode()) {
        for (int t = 0; t < 20; t++) {
          float[] query = model.query();
          float[] output = new float[Q_ROW];
          System.arraycopy(query, 0, queries, t * Q_ROW, Q_ROW);
          model.step(stream, 0, 450 + t, query, output);
          System.arraycopy(output, 0, singles, t * Q_ROW, Q_ROW);
        }
      }
      try (DecodeStream stream = session.decode()) {
        stream.step(
            0,
            450,
            20,
            queries,
            model.keys(0, 450, 470),
            model.values(0, 450, 470),
            new float[0],
            together);
      }
      assertThat(relativeError(together, singles)).isLessThan(1e-2);
    }
  }

  @Test
  void forksGoOnApartAndClosingFreesEverything() {
    long deviceBefore = service.worker().deviceBytesUsed();
    long tierBefore = service.tier().tier().bytesUsed();
    Synthetic model = new Synthetic(5, 700);
    KvSession session = client.open(SessionOptions.of(Synthetic.geometry(), 700));
    model.prefill(session, 600);
    KvSession fork = session.fork();
    decode(model, fork, 600, 650, .35);
    decode(model, session, 600, 610, .35);
    session.close();
    decode(model, fork, 650, 700, .35);
    assertThat(service.worker().deviceBytesUsed()).isGreaterThan(deviceBefore);
    fork.close();
    assertThat(service.worker().deviceBytesUsed()).isEqualTo(deviceBefore);
    assertThat(service.tier().tier().bytesUsed()).isEqualTo(tierBefore);
  }

  @Test
  void hintsBringPagesAheadAndChangeNoOutput() {
    Synthetic model = new Synthetic(6, 2100);
    SessionOptions options =
        new SessionOptions(
            Synthetic.geometry(), 2100, 0, Optional.of(plan(HeadClass.HEAD_CLASS_SPARSE, 128)));
    try (KvSession session = client.open(options)) {
      model.prefill(session, 2000);
      float[] first = model.query();
      float[] second = model.query();
      float[][] plain = twoLayers(model, session, first, second, new float[0]);
      // A hint that comes too late is dropped, so one try may meet none of it; all of them cannot.
      for (int tries = 0; hits == 0 && tries < 50; tries++) {
        float[][] hinted = twoLayers(model, session, first, second, second);
        assertThat(hinted[0]).isEqualTo(plain[0]);
        assertThat(hinted[1]).isEqualTo(plain[1]);
      }
      assertThat(hits).isPositive();
    }
  }

  private float[][] twoLayers(
      Synthetic model, KvSession session, float[] first, float[] second, float[] hint) {
    float[][] outputs = new float[2][Q_ROW];
    try (KvSession fork = session.fork();
        DecodeStream stream = fork.decode()) {
      stream.step(
          0,
          2000,
          1,
          first,
          model.keys(0, 2000, 2001),
          model.values(0, 2000, 2001),
          hint,
          outputs[0]);
      DecodeResponse response = model.step(stream, 1, 2000, second, outputs[1]);
      hits = response.getStats().getSectionsHit();
      assertThat(hits + response.getStats().getSectionsFetched()).isPositive();
      if (hint.length == 0) {
        assertThat(hits).isZero();
      }
    }
    return outputs;
  }

  @Test
  void loadGivesEveryRowBackAndGatherTheDominantOnes() {
    Synthetic model = new Synthetic(7, 400);
    try (KvSession session = client.open(SessionOptions.of(Synthetic.geometry(), 400))) {
      model.prefill(session, 400);
      int position = 10;
      for (LoadResponse part : session.load(1, 10, 385)) {
        assertThat(part.getPosition()).isEqualTo(position);
        int n = part.getKeys().getShape(0);
        float[] keys = Tensors.toFloats("keys", part.getKeys(), n, KV_HEADS, 64);
        float[] values = Tensors.toFloats("values", part.getValues(), n, KV_HEADS, 64);
        assertThat(relativeError(keys, model.keys(1, position, position + n))).isLessThan(.12);
        assertThat(relativeError(values, model.values(1, position, position + n))).isLessThan(.12);
        position += n;
      }
      assertThat(position).isEqualTo(395);
      // A query along one key: that token must be among the gathered.
      float[] query = new float[Q_ROW];
      for (int q = 0; q < 2; q++) {
        System.arraycopy(model.keys[1], 123 * Synthetic.KV_ROW, query, q * 64, 64);
      }
      List<GatheredHead> heads = session.gather(1, query, 200);
      assertThat(heads).hasSize(KV_HEADS);
      assertThat(heads.get(0).getPositionsList()).contains(123).hasSize(200);
      assertThat(new HashSet<>(heads.get(0).getPositionsList())).hasSize(200);
      int row = heads.get(0).getPositionsList().indexOf(123);
      float[] keys = Tensors.toFloats("keys", heads.get(0).getKeys(), 200, 64);
      float[] gathered = java.util.Arrays.copyOfRange(keys, row * 64, row * 64 + 64);
      float[] original = java.util.Arrays.copyOf(model.keys(1, 123, 124), 64);
      assertThat(relativeError(gathered, original)).isLessThan(.2);
    }
  }
}
