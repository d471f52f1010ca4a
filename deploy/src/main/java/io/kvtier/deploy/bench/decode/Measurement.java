package io.kvtier.deploy.bench.decode;

import io.kvtier.client.DecodeStream;
import io.kvtier.client.KvSession;
import io.kvtier.client.KvtierClient;
import io.kvtier.client.SessionOptions;
import io.kvtier.deploy.cases.EvalCase;
import io.kvtier.deploy.demo.PromptStream;
import io.kvtier.deploy.engine.AttentionMasses;
import io.kvtier.deploy.engine.Decoder;
import io.kvtier.deploy.engine.FullKvCache;
import io.kvtier.deploy.engine.LlamaConfig;
import io.kvtier.deploy.engine.Prefill;
import io.kvtier.rpc.TailorFootprint;
import io.kvtier.v1.HeadClass;
import io.kvtier.v1.HeadPlan;
import io.kvtier.v1.Plan;
import io.kvtier.v1.PlanMode;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;
import java.util.OptionalDouble;
import java.util.OptionalInt;

/**
 * Decodes contexts through kvtier sessions, each under several configurations, beside full KV. A
 * context is prefilled once. Uses the public client alone. One thread.
 */
final class Measurement {
  /** Where attention truly lies is worked out at every so many steps. */
  private static final int MASSES_EVERY = 4;

  private static final int DOMINANT_TOKENS_MIN = 64;
  private static final float RESIDUAL_MASS = .01f;

  private final Decoder decoder;
  private final LlamaConfig config;
  private final KvtierClient client;
  private final List<Configuration> configurations;
  private final List<Tally> tallies = new ArrayList<>();

  /**
   * One way to open a session.
   *
   * @param budget device bytes as a share of the full KV cache at 16 bits; empty: the default
   * @param planes every head chooses by a sketch of so many planes, or attends to every token by
   *     {@link #ALL_PLANES}, by a plan made by hand; empty: as kvtier plans
   * @param codeBits of the geometry, 4 or 8
   */
  record Configuration(
      String name, PlanMode mode, OptionalDouble budget, OptionalInt planes, int codeBits) {
    /** Planes of all codes: every head is dense. */
    static final int ALL_PLANES = 4;

    /** Whether every head chooses tokens by a sketch. */
    boolean choosesEverywhere() {
      return planes.isPresent() && planes.getAsInt() != ALL_PLANES;
    }

    /** Whether there are tokens whose mass is only estimated. */
    boolean estimates() {
      return mode == PlanMode.PLAN_MODE_KVTIER;
    }
  }

  Measurement(Decoder decoder, KvtierClient client, List<Configuration> configurations) {
    this.decoder = decoder;
    this.config = decoder.model().config();
    this.client = client;
    this.configurations = configurations;
    for (int i = 0; i < configurations.size(); i++) {
      tallies.add(new Tally());
    }
  }

  Tally tally(int configuration) {
    return tallies.get(configuration);
  }

  /** Decodes a window's end under every configuration, the right token fed at every step. */
  void text(TextWindow window, Prefill.Progress progress) {
    int[] prompt = Arrays.copyOf(window.ids(), window.scoreFrom());
    int scored = window.ids().length - window.scoreFrom();
    FullKvCache cache = new FullKvCache(config);
    Prefill prefill = decoder.prefill(cache, prompt, PromptStream.QUERY_WINDOW, progress);
    float[] full = fullLogits(cache, window);
    AttentionMasses masses = new AttentionMasses(config, window.ids().length);
    for (int i = 0; i < configurations.size(); i++) {
      cache.truncate(prompt.length);
      Tally tally = tallies.get(i);
      try (KvSession session = open(configurations.get(i), prompt.length, scored)) {
        Plan plan = PromptStream.send(session, cache, prefill).getPlan();
        Optional<AttentionMasses> measured =
            configurations.get(i).estimates() ? Optional.of(masses) : Optional.empty();
        try (DecodeStream stream = session.decode()) {
          ComparedBackend backend =
              new ComparedBackend(session, stream, cache, tally, plan, measured, MASSES_EVERY);
          for (int t = 0; t < scored; t++) {
            int position = prompt.length + t;
            float[] logits = decoder.step(backend, position, new int[] {window.ids()[position]});
            tally.addLogits(full, t * config.vocabSize(), logits);
          }
        }
      }
    }
  }

  private float[] fullLogits(FullKvCache cache, TextWindow window) {
    int scored = window.ids().length - window.scoreFrom();
    float[] full = new float[scored * config.vocabSize()];
    for (int at = 0; at < scored; at += Decoder.STEP_TOKENS_MAX) {
      int n = Math.min(Decoder.STEP_TOKENS_MAX, scored - at);
      int from = window.scoreFrom() + at;
      float[] logits =
          decoder.stepAll(cache, from, Arrays.copyOfRange(window.ids(), from, from + n));
      System.arraycopy(logits, 0, full, at * config.vocabSize(), logits.length);
    }
    return full;
  }

  /** Asks a context's questions under every configuration. */
  void cases(EvalCase context, Prefill.Progress progress) {
    int[] prompt = context.contextIds();
    FullKvCache cache = new FullKvCache(config);
    Prefill prefill = decoder.prefill(cache, prompt, PromptStream.QUERY_WINDOW, progress);
    List<int[]> answers = new ArrayList<>();
    int longest = 0;
    for (EvalCase.Query query : context.queries()) {
      int tokens = query.answerIds().length;
      answers.add(decoder.greedy(cache, prompt.length, query.queryIds(), tokens));
      cache.truncate(prompt.length);
      longest = Math.max(longest, query.queryIds().length + tokens);
    }
    for (int i = 0; i < configurations.size(); i++) {
      try (KvSession session = open(configurations.get(i), prompt.length, longest)) {
        var _ = PromptStream.send(session, cache, prefill);
        for (int q = 0; q < answers.size(); q++) {
          ask(session, cache, context.queries().get(q), answers.get(q), tallies.get(i));
          cache.truncate(prompt.length);
        }
      }
    }
  }

  private void ask(
      KvSession session, FullKvCache cache, EvalCase.Query query, int[] full, Tally tally) {
    try (KvSession fork = session.fork();
        DecodeStream stream = fork.decode()) {
      ComparedBackend backend =
          new ComparedBackend(
              fork, stream, cache, tally, Plan.getDefaultInstance(), Optional.empty(), 1);
      int[] tiered = decoder.greedy(backend, cache.tokens(), query.queryIds(), full.length);
      tally.addCase(query.answerIds(), full, tiered);
    }
  }

  private KvSession open(Configuration configuration, int prompt, int more) {
    long full = PromptStream.fullBytes(config, prompt);
    SessionOptions options =
        SessionOptions.of(
            PromptStream.geometry(decoder.model(), configuration.codeBits()), prompt + more);
    if (configuration.budget().isPresent()) {
      long bytes = (long) (full * configuration.budget().getAsDouble());
      options = options.withDeviceBytesMax(Math.max(bytes, leastBytes(configuration, options)));
    }
    if (configuration.planes().isPresent()) {
      int planes = configuration.planes().getAsInt();
      Plan plan = planes == Configuration.ALL_PLANES ? dense() : sketched(planes, prompt);
      options =
          new SessionOptions(
              options.geometry(),
              options.tokensMax(),
              options.deviceBytesMax(),
              Optional.of(plan),
              configuration.mode());
    }
    return client.open(options.withMode(configuration.mode()));
  }

  /** What the method takes in any plan, so that a short context is compared all the same. */
  private static long leastBytes(Configuration configuration, SessionOptions options) {
    return configuration.mode() == PlanMode.PLAN_MODE_TAILORKV
        ? TailorFootprint.of(options.geometry())
            .leastBytes(options.geometry().getLayers(), options.tokensMax())
        : 0;
  }

  private Plan dense() {
    Plan.Builder plan = Plan.newBuilder().setDominantTokensMin(DOMINANT_TOKENS_MIN);
    for (int i = 0; i < config.layers() * config.kvHeads(); i++) {
      plan.addHeads(
          HeadPlan.newBuilder()
              .setLayer(i / config.kvHeads())
              .setKvHead(i % config.kvHeads())
              .setHeadClass(HeadClass.HEAD_CLASS_DENSE));
    }
    return plan.build();
  }

  /** Every head sparse, with as many tokens as the residual mass asks for. */
  private Plan sketched(int planes, int tokens) {
    Plan.Builder plan = Plan.newBuilder().setDominantTokensMin(DOMINANT_TOKENS_MIN);
    for (int i = 0; i < config.layers() * config.kvHeads(); i++) {
      plan.addHeads(
          HeadPlan.newBuilder()
              .setLayer(i / config.kvHeads())
              .setKvHead(i % config.kvHeads())
              .setHeadClass(HeadClass.HEAD_CLASS_SPARSE)
              .setSketchPlanes(planes)
              .setDominantTokensMax(tokens)
              .setResidualMass(RESIDUAL_MASS));
    }
    return plan.build();
  }
}
