package io.kvtier.integration;

import static io.kvtier.integration.Synthetic.HEAD_DIM;
import static io.kvtier.integration.Synthetic.KV_HEADS;
import static io.kvtier.integration.Synthetic.LAYERS;
import static io.kvtier.integration.Synthetic.Q_HEADS;
import static io.kvtier.integration.Synthetic.Q_ROW;
import static org.assertj.core.api.Assertions.assertThat;

import io.kvtier.client.DecodeStream;
import io.kvtier.client.KvSession;
import io.kvtier.client.PrefillStream;
import io.kvtier.client.SessionOptions;
import io.kvtier.rpc.Tensors;
import io.kvtier.v1.DecodeRequest;
import io.kvtier.v1.DecodeResponse;
import io.kvtier.v1.Dtype;
import io.kvtier.v1.KvChunk;
import io.kvtier.v1.PrefillFinish;
import io.kvtier.v1.PrefillRequest;
import io.kvtier.v1.QueryWindow;
import io.kvtier.v1.Session;
import io.kvtier.v1.StreamOpen;
import io.kvtier.v1.Tensor;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/**
 * Four sessions of the same rows: {@code good} and {@code control} with their prefill finished,
 * {@code partial} with the first tokens of its first layer only, {@code full} at its tokens_max.
 */
final class Quartet implements AutoCloseable {
  static final int TOKENS = 200;
  static final int TOKENS_MAX = 4140;
  static final int PARTIAL_TOKENS = 40;
  static final int FULL_TOKENS = 60;
  private static final int WINDOW = 32;
  private static final int STEPS = 2;

  private static final Synthetic MODEL = new Synthetic(11, TOKENS + 100);
  private static final float[][] WINDOWS = new float[LAYERS][];
  private static final float[] STEP_QUERIES = queries(STEPS);

  static {
    for (int layer = 0; layer < LAYERS; layer++) {
      WINDOWS[layer] = queries(WINDOW);
    }
  }

  final KvSession good;
  final KvSession control;
  final KvSession partial;
  final KvSession full;

  Quartet(Loopback at) throws Exception {
    good = open(at, TOKENS_MAX);
    control = open(at, TOKENS_MAX);
    partial = open(at, TOKENS_MAX);
    full = open(at, FULL_TOKENS);
    fill(good, 0, TOKENS);
    fill(control, 0, TOKENS);
    fill(full, 0, FULL_TOKENS);
    assertThat(good.info().getEpoch()).isPositive();
    PrefillRequest first =
        chunk(0, 0, kv(0, PARTIAL_TOKENS), tensor(MODEL.values(0, 0, PARTIAL_TOKENS)));
    assertThat(at.prefill(open(partial), first).getReceivedTokens()).isEqualTo(PARTIAL_TOKENS);
  }

  private static KvSession open(Loopback at, int tokensMax) {
    return at.client.open(SessionOptions.of(Synthetic.geometry(), tokensMax));
  }

  private static float[] queries(int count) {
    float[] queries = new float[count * Q_ROW];
    for (int i = 0; i < count; i++) {
      System.arraycopy(MODEL.query(), 0, queries, i * Q_ROW, Q_ROW);
    }
    return queries;
  }

  /** Sends the rows up to {@code tokens} and finishes; the first layer has some already. */
  private static void fill(KvSession session, int received, int tokens) {
    try (PrefillStream stream = session.prefill()) {
      for (int layer = 0; layer < LAYERS; layer++) {
        int at = layer == 0 ? received : 0;
        stream.chunk(
            layer, at, tokens - at, MODEL.keys(layer, at, tokens), MODEL.values(layer, at, tokens));
        stream.queries(layer, WINDOW, WINDOWS[layer]);
      }
      assertThat(stream.finish(tokens).getPlan().getHeadsCount()).isEqualTo(LAYERS * KV_HEADS);
    }
  }

  /** What no refused call may change: all go on as if nothing had been sent. */
  void requireThatAllGoOn() {
    List<Tensor> expected = decoded(control);
    requireSame("good", decoded(good), expected);
    fill(partial, PARTIAL_TOKENS, TOKENS);
    requireSame("partial", decoded(partial), expected);
  }

  private static void requireSame(String name, List<Tensor> actual, List<Tensor> expected) {
    for (int i = 0; i < expected.size(); i++) {
      assertThat(actual.get(i).getData())
          .as(
              "%s session's tensor %d: %s, expected %s",
              name, i, firstElements(actual.get(i)), firstElements(expected.get(i)))
          .matches(expected.get(i).getData()::equals, "is bit-identical to the control session's");
    }
  }

  private static String firstElements(Tensor tensor) {
    float[] elements = new float[2];
    tensor
        .getData()
        .asReadOnlyByteBuffer()
        .order(ByteOrder.LITTLE_ENDIAN)
        .asFloatBuffer()
        .get(elements);
    return Arrays.toString(elements);
  }

  /** Outputs and LSEs of some steps. */
  private static List<Tensor> decoded(KvSession session) {
    List<Tensor> tensors = new ArrayList<>();
    try (DecodeStream stream = session.decode()) {
      for (int step = 0; step < STEPS; step++) {
        float[] query = new float[Q_ROW];
        System.arraycopy(STEP_QUERIES, step * Q_ROW, query, 0, Q_ROW);
        for (int layer = 0; layer < LAYERS; layer++) {
          DecodeResponse response =
              MODEL.step(stream, layer, TOKENS + step, query, new float[Q_ROW]);
          tensors.add(response.getOutput());
          tensors.add(response.getLse());
        }
      }
    }
    return tensors;
  }

  /** Keys of some tokens, good as values too. */
  static Tensor kv(int from, int tokens) {
    return tensor(MODEL.keys(0, from, from + tokens));
  }

  private static Tensor tensor(float[] rows) {
    return Tensors.of(Dtype.DTYPE_FP32, rows, rows.length / Synthetic.KV_ROW, KV_HEADS, HEAD_DIM);
  }

  /** Zeros for any number of tokens. */
  static Tensor zeros(int tokens, int heads) {
    return Tensors.of(
        Dtype.DTYPE_FP32, new float[tokens * heads * HEAD_DIM], tokens, heads, HEAD_DIM);
  }

  /** Good queries of some tokens. */
  static Tensor queryRows(int tokens) {
    return zeros(tokens, Q_HEADS);
  }

  static StreamOpen streamOpen(Session session) {
    return StreamOpen.newBuilder()
        .setSessionId(session.getSessionId())
        .setEpoch(session.getEpoch())
        .build();
  }

  static PrefillRequest open(KvSession session) {
    return PrefillRequest.newBuilder().setOpen(streamOpen(session.info())).build();
  }

  static DecodeRequest openDecode(KvSession session) {
    return DecodeRequest.newBuilder().setOpen(streamOpen(session.info())).build();
  }

  static PrefillRequest chunk(int layer, int position, Tensor rows) {
    return chunk(layer, position, rows, rows);
  }

  static PrefillRequest chunk(int layer, int position, Tensor keys, Tensor values) {
    return PrefillRequest.newBuilder()
        .setChunk(
            KvChunk.newBuilder()
                .setLayer(layer)
                .setPosition(position)
                .setKeys(keys)
                .setValues(values))
        .build();
  }

  static PrefillRequest window(int layer, Tensor queries) {
    return PrefillRequest.newBuilder()
        .setQueries(QueryWindow.newBuilder().setLayer(layer).setQueries(queries))
        .build();
  }

  static PrefillRequest finish(int tokens) {
    return PrefillRequest.newBuilder()
        .setFinish(PrefillFinish.newBuilder().setTokens(tokens))
        .build();
  }

  @Override
  public void close() {
    try (good;
        control;
        partial;
        full) {
      // All are closed, whichever refuses.
    }
  }
}
