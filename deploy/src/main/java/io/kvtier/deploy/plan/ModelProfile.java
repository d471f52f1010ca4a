package io.kvtier.deploy.plan;

import io.kvtier.coordinator.plan.ResidualCurve;
import io.kvtier.deploy.cases.CaseGenerator;
import io.kvtier.deploy.cases.Task;
import io.kvtier.deploy.demo.PromptStream;
import io.kvtier.deploy.engine.AttentionMasses;
import io.kvtier.deploy.engine.Decoder;
import io.kvtier.deploy.engine.FullKvCache;
import io.kvtier.deploy.engine.LlamaConfig;
import io.kvtier.deploy.engine.Prefill;
import io.kvtier.deploy.engine.Tokenizer;
import io.kvtier.rpc.PlanLimits;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/**
 * Where a model's heads attend: the curves that a worker would send with a prompt's last queries,
 * worked out from exact attention over generated text.
 */
public final class ModelProfile {
  private static final int SINKS = 4;
  private static final int WINDOW = 64;
  private static final int SMALLEST_K = 16;

  private ModelProfile() {}

  /**
   * The curves of a model, one a (layer, KV head) pair.
   *
   * @param context tokens that are read
   * @param tokens tokens that the plan is for, at least {@code context}
   */
  public static List<ResidualCurve> of(
      Decoder decoder,
      Tokenizer tokenizer,
      int context,
      int tokens,
      long seed,
      Prefill.Progress progress) {
    LlamaConfig config = decoder.model().config();
    int[] ids = new CaseGenerator(tokenizer).generate(Task.MULTIKEY, context, seed).contextIds();
    FullKvCache cache = new FullKvCache(config);
    Prefill prefill = decoder.prefill(cache, ids, PromptStream.QUERY_WINDOW, progress);
    AttentionMasses masses = new AttentionMasses(config, ids.length);
    int[] k = points(ids.length);
    List<ResidualCurve> curves = new ArrayList<>();
    for (int layer = 0; layer < config.layers(); layer++) {
      float[][] residuals = new float[config.kvHeads()][k.length];
      Overlap[] overlaps = new Overlap[config.kvHeads()];
      Arrays.setAll(overlaps, head -> new Overlap());
      for (int i = 0; i < prefill.windowTokens(); i++) {
        int visible = ids.length - prefill.windowTokens() + i + 1;
        float[] query =
            Arrays.copyOfRange(
                prefill.windowQueries(layer), i * config.qWidth(), (i + 1) * config.qWidth());
        float[][] ofHeads = masses.of(cache, layer, visible, query);
        for (int head = 0; head < config.kvHeads(); head++) {
          add(residuals[head], ofHeads[head], k, prefill.windowTokens());
          overlaps[head].add(ofHeads[head], ids.length - WINDOW);
        }
      }
      for (int head = 0; head < config.kvHeads(); head++) {
        String name = "layer " + layer;
        float error = ScoreError.of(cache, layer, head, prefill.windowQueries(layer));
        curves.add(
            ResidualCurve.of(name, k, residuals[head], tokens)
                .withOverlap(name, overlaps[head].share())
                .withScoreError(name, Math.min(PlanLimits.SCORE_ERROR_MAX, error)));
      }
    }
    return curves;
  }

  private static int[] points(int tokens) {
    List<Integer> k = new ArrayList<>();
    for (int point = SMALLEST_K; point < tokens; point *= 2) {
      k.add(point);
    }
    return k.stream().mapToInt(point -> point).toArray();
  }

  /** Adds one query's mass beyond the k largest of the tokens that are not exact. */
  private static void add(float[] residuals, float[] masses, int[] k, int window) {
    float[] paged =
        Arrays.copyOfRange(
            masses, Math.min(SINKS, masses.length), Math.max(SINKS, masses.length - WINDOW));
    Arrays.sort(paged);
    double beyond = 0;
    int at = 0;
    for (int point = k.length - 1; point >= 0; point--) {
      for (; at < paged.length - k[point]; at++) {
        beyond += paged[at];
      }
      residuals[point] += (float) Math.min(1, beyond / window);
    }
  }
}
