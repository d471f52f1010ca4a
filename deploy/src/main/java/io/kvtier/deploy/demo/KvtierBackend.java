package io.kvtier.deploy.demo;

import io.kvtier.client.DecodeStream;
import io.kvtier.deploy.engine.AttentionBackend;
import io.kvtier.deploy.engine.FullKvCache;
import io.kvtier.deploy.engine.LlamaConfig;
import io.kvtier.v1.DecodeResponse;
import java.util.ArrayList;
import java.util.List;

/**
 * Attention through a kvtier session. Keeps what went in and came out, to be compared once the
 * clock has stopped. One sequence, one thread.
 */
final class KvtierBackend implements AttentionBackend {
  private final DecodeStream stream;
  private final LlamaConfig config;
  private final List<Step> steps = new ArrayList<>();

  private record Step(
      int layer,
      int position,
      int tokens,
      float[] queries,
      float[] keys,
      float[] values,
      float[] output,
      DecodeResponse response) {}

  /** A backend on an open decode stream. */
  KvtierBackend(DecodeStream stream, LlamaConfig config) {
    this.stream = stream;
    this.config = config;
  }

  @Override
  public boolean wantsHints() {
    return true;
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
    DecodeResponse response =
        stream.step(layer, position, tokens, queries, keys, values, hint, output);
    steps.add(
        new Step(
            layer,
            position,
            tokens,
            queries.clone(),
            keys.clone(),
            values.clone(),
            output.clone(),
            response));
  }

  /**
   * Compares every output with exact attention of the same query over the full cache.
   *
   * @param exact the full cache with the tokens the session had at first; appended to
   */
  void compare(FullKvCache exact, Tally tally) {
    for (Step step : steps) {
      tally.addStats(step.response());
      float[] expected = new float[step.output().length];
      exact.append(step.layer(), step.position(), step.tokens(), step.keys(), step.values());
      exact.attendOnly(step.layer(), step.position(), step.tokens(), step.queries(), expected);
      for (int at = 0; at < expected.length; at += config.headDim()) {
        tally.addError(relativeError(step.output(), expected, at));
      }
    }
  }

  private float relativeError(float[] actual, float[] expected, int at) {
    double difference = 0;
    double norm = 0;
    for (int i = at; i < at + config.headDim(); i++) {
      double d = actual[i] - expected[i];
      difference += d * d;
      norm += (double) expected[i] * expected[i];
    }
    return norm == 0 ? (float) Math.sqrt(difference) : (float) Math.sqrt(difference / norm);
  }
}
