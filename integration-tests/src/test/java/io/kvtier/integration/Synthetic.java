package io.kvtier.integration;

import com.google.protobuf.ByteString;
import io.kvtier.attention.ReferenceAttention;
import io.kvtier.client.DecodeStream;
import io.kvtier.client.KvSession;
import io.kvtier.client.PrefillStream;
import io.kvtier.rpc.Tensors;
import io.kvtier.v1.DecodeResponse;
import io.kvtier.v1.Dtype;
import io.kvtier.v1.Geometry;
import io.kvtier.v1.HeadClass;
import io.kvtier.v1.HeadPlan;
import io.kvtier.v1.LoadResponse;
import io.kvtier.v1.Plan;
import io.kvtier.v1.PrefillResponse;
import java.util.Arrays;
import java.util.SplittableRandom;

/** A made-up model's keys, values and queries, and what exact attention would give. */
final class Synthetic {
  static final int LAYERS = 2;
  static final int Q_HEADS = 4;
  static final int KV_HEADS = 2;
  static final int HEAD_DIM = 64;
  static final int KV_ROW = KV_HEADS * HEAD_DIM;
  static final int Q_ROW = Q_HEADS * HEAD_DIM;

  final float[][] keys = new float[LAYERS][];
  final float[][] values = new float[LAYERS][];
  final int tokens;
  private final SplittableRandom random;

  /** Rows for up to {@code tokens} tokens; queries come as asked for. */
  Synthetic(long seed, int tokens) {
    this.random = new SplittableRandom(seed);
    this.tokens = tokens;
    for (int layer = 0; layer < LAYERS; layer++) {
      keys[layer] = gaussian(tokens * KV_ROW, 2);
      values[layer] = gaussian(tokens * KV_ROW, 1);
    }
  }

  static Geometry geometry() {
    return Geometry.newBuilder()
        .setLayers(LAYERS)
        .setQHeads(Q_HEADS)
        .setKvHeads(KV_HEADS)
        .setHeadDim(HEAD_DIM)
        .setKvDtype(Dtype.DTYPE_FP32)
        .setModelFingerprint(ByteString.copyFromUtf8("0123456789abcdef"))
        .build();
  }

  /**
   * A plan in which all heads are of a class.
   *
   * @param tokensMax of sparse heads, most dominant tokens
   */
  static Plan plan(HeadClass headClass, int tokensMax, long hotSetBytes) {
    Plan.Builder plan = Plan.newBuilder().setDominantTokensMin(64).setHotSetBytes(hotSetBytes);
    for (int i = 0; i < LAYERS * KV_HEADS; i++) {
      HeadPlan.Builder head =
          HeadPlan.newBuilder()
              .setLayer(i / KV_HEADS)
              .setKvHead(i % KV_HEADS)
              .setHeadClass(headClass);
      if (headClass == HeadClass.HEAD_CLASS_SPARSE) {
        head.setDominantTokensMax(tokensMax).setResidualMass(.01f);
      }
      plan.addHeads(head);
    }
    return plan.build();
  }

  float[] query() {
    return gaussian(Q_ROW, 1.2);
  }

  private float[] gaussian(int length, double deviation) {
    float[] x = new float[length];
    for (int i = 0; i < length; i++) {
      x[i] = (float) (random.nextGaussian() * deviation);
    }
    return x;
  }

  float[] keys(int layer, int from, int to) {
    return Arrays.copyOfRange(keys[layer], from * KV_ROW, to * KV_ROW);
  }

  float[] values(int layer, int from, int to) {
    return Arrays.copyOfRange(values[layer], from * KV_ROW, to * KV_ROW);
  }

  /** Streams the first tokens of all layers in, with random last queries, and finishes. */
  PrefillResponse prefill(KvSession session, int count) {
    try (PrefillStream stream = session.prefill()) {
      for (int layer = 0; layer < LAYERS; layer++) {
        for (int at = 0; at < count; at += 500) {
          int to = Math.min(count, at + 500);
          stream.chunk(layer, at, to - at, keys(layer, at, to), values(layer, at, to));
        }
        int window = Math.min(32, count);
        stream.queries(layer, window, gaussian(window * Q_ROW, 1.2));
      }
      return stream.finish(count);
    }
  }

  /** The same model, with the first tokens' rows as the service gives them back. */
  Synthetic withRows(KvSession session, int count) {
    Synthetic loaded = new Synthetic(0, tokens);
    for (int layer = 0; layer < LAYERS; layer++) {
      loaded.keys[layer] = keys[layer].clone();
      loaded.values[layer] = values[layer].clone();
      for (LoadResponse part : session.load(layer, 0, count)) {
        int n = part.getKeys().getShape(0);
        int at = part.getPosition() * KV_ROW;
        float[] partKeys = Tensors.toFloats("keys", part.getKeys(), n, KV_HEADS, HEAD_DIM);
        float[] partValues = Tensors.toFloats("values", part.getValues(), n, KV_HEADS, HEAD_DIM);
        System.arraycopy(partKeys, 0, loaded.keys[layer], at, partKeys.length);
        System.arraycopy(partValues, 0, loaded.values[layer], at, partValues.length);
      }
    }
    return loaded;
  }

  /** Decodes one token of one layer. */
  DecodeResponse step(DecodeStream stream, int layer, int position, float[] query, float[] output) {
    return step(stream, layer, position, query, new float[0], output);
  }

  /** The same with the next layer's predicted query; empty: none. */
  DecodeResponse step(
      DecodeStream stream, int layer, int position, float[] query, float[] hint, float[] output) {
    return stream.step(
        layer,
        position,
        1,
        query,
        keys(layer, position, position + 1),
        values(layer, position, position + 1),
        hint,
        output);
  }

  /** Exact attention of a query over the first tokens of a layer. */
  float[] exact(int layer, int visible, float[] query) {
    float[] output = new float[Q_ROW];
    for (int q = 0; q < Q_HEADS; q++) {
      ReferenceAttention.attend(
          query,
          q * HEAD_DIM,
          keys[layer],
          values[layer],
          q / (Q_HEADS / KV_HEADS) * HEAD_DIM,
          KV_ROW,
          visible,
          HEAD_DIM,
          output,
          q * HEAD_DIM);
    }
    return output;
  }

  static double relativeError(float[] actual, float[] expected) {
    double difference = 0;
    double norm = 0;
    for (int i = 0; i < expected.length; i++) {
      difference += Math.pow(actual[i] - expected[i], 2);
      norm += Math.pow(expected[i], 2);
    }
    return Math.sqrt(difference / norm);
  }
}
