package io.kvtier.deploy.bench.decode;

import io.kvtier.client.DecodeStream;
import io.kvtier.client.KvSession;
import io.kvtier.deploy.demo.PromptStream;
import io.kvtier.deploy.engine.AttentionBackend;
import io.kvtier.deploy.engine.AttentionMasses;
import io.kvtier.deploy.engine.FullKvCache;
import io.kvtier.deploy.engine.LlamaConfig;
import io.kvtier.rpc.Tensors;
import io.kvtier.v1.DecodeResponse;
import io.kvtier.v1.GatheredHead;
import io.kvtier.v1.HeadClass;
import io.kvtier.v1.HeadPlan;
import io.kvtier.v1.Plan;
import java.util.Arrays;
import java.util.Comparator;
import java.util.List;
import java.util.Optional;

/**
 * Attention through a kvtier session, each step of which is held to exact attention of the same
 * query over the same tokens. One sequence, one thread.
 */
final class ComparedBackend implements AttentionBackend {
  private static final double RESIDUAL_ASKED = .01;
  private static final int FEW = 64;
  private static final int MANY = 256;
  private static final int SINKS_MAX = 64;

  private final KvSession session;
  private final DecodeStream stream;
  private final FullKvCache exact;
  private final LlamaConfig config;
  private final Tally tally;
  private final Plan plan;
  private final Optional<AttentionMasses> masses;
  private final int every;

  /**
   * A backend on an open decode stream.
   *
   * @param exact the full cache with the tokens that the session has; appended to
   * @param plan the session's
   * @param masses measures, every {@code every} steps, where the attention truly lies; empty: never
   */
  ComparedBackend(
      KvSession session,
      DecodeStream stream,
      FullKvCache exact,
      Tally tally,
      Plan plan,
      Optional<AttentionMasses> masses,
      int every) {
    this.session = session;
    this.stream = stream;
    this.exact = exact;
    this.config = exact.config();
    this.tally = tally;
    this.plan = plan;
    this.masses = masses;
    this.every = every;
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
    if (masses.isPresent() && tokens == 1 && position % every == 0) {
      measureChoice(masses.get(), layer, position, queries);
    }
    DecodeResponse response =
        stream.step(layer, position, tokens, queries, keys, values, hint, output);
    tally.addResponse(response, layer, (double) PromptStream.fullBytes(config, position));
    exact.append(layer, position, tokens, keys, values);
    float[] expected = new float[output.length];
    exact.attendOnly(layer, position, tokens, queries, expected);
    tally.addErrors(output, expected, config.headDim());
  }

  private void measureChoice(AttentionMasses measure, int layer, int position, float[] query) {
    float[][] truth = measure.of(exact, layer, position, query);
    List<GatheredHead> adaptive = session.gatherAsPlanned(layer, query);
    int exactTokens = exactTokens(adaptive.getFirst(), position);
    List<GatheredHead> few = session.gather(layer, query, exactTokens + FEW);
    List<GatheredHead> many = session.gather(layer, query, exactTokens + MANY);
    for (int head = 0; head < config.kvHeads(); head++) {
      tally.addCaptured(
          best(truth[head], few.get(head), head, query, FEW),
          AttentionMasses.largest(truth[head], FEW),
          best(truth[head], many.get(head), head, query, MANY),
          AttentionMasses.largest(truth[head], MANY));
      double held = 0;
      for (int gathered : adaptive.get(head).getPositionsList()) {
        held += truth[head][gathered];
      }
      // Other classes attend to every token.
      if (headPlan(layer, head).getHeadClass() == HeadClass.HEAD_CLASS_SPARSE) {
        tally.addResidual(1 - held, RESIDUAL_ASKED);
      }
    }
  }

  private HeadPlan headPlan(int layer, int head) {
    return plan.getHeads(layer * config.kvHeads() + head);
  }

  /** Exact tokens come first: the latest ones backwards, then the sinks. */
  private static int exactTokens(GatheredHead head, int position) {
    int count = 0;
    while (count < head.getPositionsCount() && head.getPositions(count) == position - 1 - count) {
      count++;
    }
    int sink = count < head.getPositionsCount() ? head.getPositions(count) : 0;
    return sink < SINKS_MAX ? count + sink + 1 : count;
  }

  /** The true mass of the {@code k} tokens that look best by the keys that were gathered. */
  private double best(float[] truth, GatheredHead head, int kvHead, float[] query, int k) {
    int n = head.getPositionsCount();
    int headDim = config.headDim();
    float[] keys = Tensors.toFloats("keys", head.getKeys(), n, headDim);
    float[] looks = AttentionMasses.pooled(keys, n, query, kvHead, config);
    Integer[] order = new Integer[n];
    Arrays.setAll(order, i -> i);
    Arrays.sort(order, Comparator.comparingDouble(i -> -looks[i]));
    double held = 0;
    for (int i = 0; i < Math.min(k, n); i++) {
      held += truth[head.getPositions(order[i])];
    }
    return held;
  }
}
