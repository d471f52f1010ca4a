package io.kvtier.integration;

import static org.assertj.core.api.Assertions.assertThat;

import com.google.protobuf.ByteString;
import io.kvtier.attention.ReferenceAttention;
import io.kvtier.cachetier.CacheTierConfig;
import io.kvtier.client.DecodeStream;
import io.kvtier.client.KvSession;
import io.kvtier.client.KvtierClient;
import io.kvtier.client.PrefillStream;
import io.kvtier.client.SessionOptions;
import io.kvtier.coordinator.CoordinatorConfig;
import io.kvtier.deploy.service.AllInOne;
import io.kvtier.rpc.EndpointConfig;
import io.kvtier.v1.DecodeResponse;
import io.kvtier.v1.Dtype;
import io.kvtier.v1.Geometry;
import java.util.Arrays;
import java.util.Optional;
import java.util.SplittableRandom;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/**
 * A generation of 20,000 tokens in a twelfth of its device bytes, less than its sketches of two
 * planes take in the end, so that it goes on only with a smaller one. Each query is after one token
 * that was generated any time before, so it is wrong unless paged tokens are found again.
 */
class LongDecodeIT {
  private static final int PROMPT = 600;
  private static final int TOKENS = PROMPT + 20_000;
  private static final int CHECK_EVERY = 100;
  private static final int SHARE = 12;
  private static final int Q_HEADS = 2;
  private static final int HEAD_DIM = 64;
  private static final int Q_ROW = Q_HEADS * HEAD_DIM;

  /** Puts nearly all of the attention on the token that is looked for. */
  private static final float LOOKED_FOR = 2.2f;

  private final SplittableRandom random = new SplittableRandom(51);
  private final float[] keys = gaussian(TOKENS * HEAD_DIM, 1);
  private final float[] values = gaussian(TOKENS * HEAD_DIM, 1);

  private static Geometry geometry() {
    return Geometry.newBuilder()
        .setLayers(1)
        .setQHeads(Q_HEADS)
        .setKvHeads(1)
        .setHeadDim(HEAD_DIM)
        .setKvDtype(Dtype.DTYPE_BF16)
        .setModelFingerprint(ByteString.copyFromUtf8("a long generator"))
        .build();
  }

  private float[] gaussian(int length, double deviation) {
    float[] x = new float[length];
    for (int i = 0; i < length; i++) {
      x[i] = (float) (random.nextGaussian() * deviation);
    }
    return x;
  }

  /** A query after one of the tokens so far, another for each q head. */
  private float[] query(int tokens) {
    float[] query = gaussian(Q_ROW, .5);
    for (int q = 0; q < Q_HEADS; q++) {
      int wanted = random.nextInt(tokens) * HEAD_DIM;
      for (int d = 0; d < HEAD_DIM; d++) {
        query[q * HEAD_DIM + d] += LOOKED_FOR * keys[wanted + d];
      }
    }
    return query;
  }

  private float[] row(float[] rows, int from, int to) {
    return Arrays.copyOfRange(rows, from * HEAD_DIM, to * HEAD_DIM);
  }

  private double error(float[] output, float[] query, int visible) {
    float[] expected = new float[Q_ROW];
    for (int q = 0; q < Q_HEADS; q++) {
      int at = q * HEAD_DIM;
      ReferenceAttention.attend(
          query, at, keys, values, 0, HEAD_DIM, visible, HEAD_DIM, expected, at);
    }
    return Synthetic.relativeError(output, expected);
  }

  private void prefill(KvSession session) {
    try (PrefillStream stream = session.prefill()) {
      stream.chunk(0, 0, PROMPT, row(keys, 0, PROMPT), row(values, 0, PROMPT));
      float[] queries = new float[32 * Q_ROW];
      for (int i = 0; i < 32; i++) {
        System.arraycopy(query(PROMPT), 0, queries, i * Q_ROW, Q_ROW);
      }
      stream.queries(0, 32, queries);
      assertThat(stream.finish(PROMPT).getPlan().getHeadsCount()).isEqualTo(1);
    }
  }

  @Test
  @Timeout(180)
  void generatedTokensPageOutAndAreFoundAgain() {
    long full = 2L * TOKENS * HEAD_DIM * Short.BYTES;
    long budget = full / SHARE;
    AllInOne service =
        AllInOne.start(
            CoordinatorConfig.defaults(),
            new CacheTierConfig(EndpointConfig.loopback(), 64L << 20, Optional.empty()),
            64L << 20);
    try (service;
        KvtierClient client = KvtierClient.connect(service.coordinator().target());
        KvSession session =
            client.open(new SessionOptions(geometry(), TOKENS, budget, Optional.empty()));
        DecodeStream stream = session.decode()) {
      prefill(session);
      double error = 0;
      long most = 0;
      int checks = 0;
      float[] output = new float[Q_ROW];
      long startNs = System.nanoTime();
      for (int position = PROMPT; position < TOKENS; position++) {
        float[] query = query(position);
        float[] key = row(keys, position, position + 1);
        float[] value = row(values, position, position + 1);
        DecodeResponse response =
            stream.step(0, position, 1, query, key, value, new float[0], output);
        most = Math.max(most, response.getBytes().getDevice());
        if (position % CHECK_EVERY == 0) {
          double own = error(output, query, position + 1);
          assertThat(own).as("position %d", position).isLessThan(.5);
          error += own;
          checks++;
          assertThat(service.worker().deviceBytesUsed()).isLessThanOrEqualTo(budget);
          // Whole pages outside the window, but for those on their way: on a busy machine dozens.
          assertThat(response.getDurableTokens()).isGreaterThan(position - 64 * 64);
        }
      }
      System.out.printf(
          "20,000 tokens: error %.3f, most device bytes %,d of %,d, full KV %,d, %,d ms%n",
          error / checks, most, budget, full, (System.nanoTime() - startNs) / 1_000_000);
      assertThat(error / checks).isLessThan(.15);
      assertThat(most).isBetween(budget / 2, budget);
      assertThat(service.tier().tier().bytesUsed()).isGreaterThan(TOKENS * 70L);
    }
    assertThat(service.worker().deviceBytesUsed()).isZero();
  }
}
