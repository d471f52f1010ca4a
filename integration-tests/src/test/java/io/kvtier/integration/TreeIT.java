package io.kvtier.integration;

import static io.kvtier.integration.Synthetic.KV_ROW;
import static io.kvtier.integration.Synthetic.LAYERS;
import static io.kvtier.integration.Synthetic.Q_HEADS;
import static io.kvtier.integration.Synthetic.Q_ROW;
import static io.kvtier.integration.Synthetic.relativeError;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.cachetier.CacheTierConfig;
import io.kvtier.client.DecodeStream;
import io.kvtier.client.KvSession;
import io.kvtier.client.KvtierClient;
import io.kvtier.client.PrefillStream;
import io.kvtier.client.SessionOptions;
import io.kvtier.coordinator.CoordinatorConfig;
import io.kvtier.deploy.service.AllInOne;
import io.kvtier.rpc.EndpointConfig;
import io.kvtier.rpc.Tensors;
import io.kvtier.v1.DecodeResponse;
import io.kvtier.v1.GatheredHead;
import io.kvtier.v1.HeadClass;
import io.kvtier.v1.LoadResponse;
import io.kvtier.v1.PlanMode;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;
import java.util.SplittableRandom;
import java.util.stream.IntStream;
import org.assertj.core.api.ThrowableAssert.ThrowingCallable;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Trees of tokens that are verified in one step, through the public client and real gRPC. */
class TreeIT {
  private static final float[] NO_HINT = {};

  /** Differences of fp32 rounding; every sum has the same terms. */
  private static final double ROUNDING = 1e-5;

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

  /** Drafted tokens; rows lie as they are sent. */
  private record Draft(int[] parents, float[] queries, float[] keys, float[] values) {
    static Draft random(SplittableRandom random, int tokens) {
      int[] parents = new int[tokens];
      Arrays.setAll(parents, i -> random.nextInt(-1, i));
      return of(random, parents);
    }

    static Draft of(SplittableRandom random, int... parents) {
      int n = parents.length;
      return new Draft(
          parents,
          gaussian(random, n * Q_ROW, 1.2),
          gaussian(random, n * KV_ROW, 2),
          gaussian(random, n * KV_ROW, 1));
    }

    private static float[] gaussian(SplittableRandom random, int length, double deviation) {
      float[] x = new float[length];
      for (int i = 0; i < length; i++) {
        x[i] = (float) (random.nextGaussian() * deviation);
      }
      return x;
    }

    int tokens() {
      return parents.length;
    }

    int[] pathTo(int token) {
      return IntStream.iterate(token, node -> node >= 0, node -> parents[node]).sorted().toArray();
    }

    int[] leaves() {
      return IntStream.range(0, tokens())
          .filter(i -> IntStream.of(parents).noneMatch(parent -> parent == i))
          .toArray();
    }

    static float[] pick(float[] rows, int[] nodes, int length) {
      float[] picked = new float[nodes.length * length];
      for (int i = 0; i < nodes.length; i++) {
        System.arraycopy(rows, nodes[i] * length, picked, i * length, length);
      }
      return picked;
    }
  }

  /** What a step gave: {@code [tokens][qHeads][headDim]} and {@code [tokens][qHeads]}. */
  private record Given(float[] output, float[] lse) {
    float[] output(int token) {
      return Arrays.copyOfRange(output, token * Q_ROW, (token + 1) * Q_ROW);
    }

    double difference(int token, Given other, int otherToken) {
      double lses = 0;
      for (int q = 0; q < Q_HEADS; q++) {
        lses =
            Math.max(
                lses, Math.abs(lse[token * Q_HEADS + q] - other.lse[otherToken * Q_HEADS + q]));
      }
      return Math.max(lses, relativeError(output(token), other.output(otherToken)));
    }
  }

  private static Given treeStep(DecodeStream stream, int layer, int position, Draft draft) {
    float[] output = new float[draft.tokens() * Q_ROW];
    DecodeResponse response =
        stream.treeStep(
            layer,
            position,
            draft.parents,
            draft.queries,
            draft.keys,
            draft.values,
            NO_HINT,
            output);
    return new Given(output, lse(response, draft.tokens()));
  }

  private static Given linear(
      DecodeStream stream, int layer, int position, Draft draft, int[] nodes) {
    float[] output = new float[nodes.length * Q_ROW];
    DecodeResponse response =
        stream.step(
            layer,
            position,
            nodes.length,
            Draft.pick(draft.queries, nodes, Q_ROW),
            Draft.pick(draft.keys, nodes, KV_ROW),
            Draft.pick(draft.values, nodes, KV_ROW),
            NO_HINT,
            output);
    return new Given(output, lse(response, nodes.length));
  }

  private static float[] lse(DecodeResponse response, int tokens) {
    return Tensors.toFloats("lse", response.getLse(), tokens, Q_HEADS);
  }

  /** The most that a token of a tree differs from what a linear decode of its path gives. */
  private static double worst(KvSession session, int layer, int position, Draft draft, Given tree) {
    double worst = 0;
    for (int leaf : draft.leaves()) {
      int[] path = draft.pathTo(leaf);
      try (KvSession fork = session.fork();
          DecodeStream stream = fork.decode()) {
        Given line = linear(stream, layer, position, draft, path);
        for (int i = 0; i < path.length; i++) {
          worst = Math.max(worst, tree.difference(path[i], line, i));
        }
      }
    }
    return worst;
  }

  private static KvSession open(String kind, int tokensMax) {
    return client.open(
        switch (kind) {
          case "dense" -> options(tokensMax, SessionIT.plan(HeadClass.HEAD_CLASS_DENSE, 0));
          case "sparse" -> options(tokensMax, SessionIT.plan(HeadClass.HEAD_CLASS_SPARSE, 128));
          case "streamed" -> options(tokensMax, SessionIT.plan(HeadClass.HEAD_CLASS_STREAMED, 0));
          case "tailorkv" ->
              new SessionOptions(
                  Synthetic.geometry(),
                  tokensMax,
                  0,
                  Optional.empty(),
                  PlanMode.PLAN_MODE_TAILORKV);
          default -> SessionOptions.of(Synthetic.geometry(), tokensMax);
        });
  }

  private static SessionOptions options(int tokensMax, io.kvtier.v1.Plan plan) {
    return new SessionOptions(Synthetic.geometry(), tokensMax, 0, Optional.of(plan));
  }

  @ParameterizedTest
  @ValueSource(strings = {"dense", "sparse", "streamed", "tailorkv", "planned"})
  void eachTokenOfATreeGetsWhatALinearDecodeOfItsPathGives(String kind) {
    long seed = kind.hashCode();
    SplittableRandom random = new SplittableRandom(seed);
    Synthetic model = new Synthetic(seed, 700);
    try (KvSession session = open(kind, 800);
        DecodeStream stream = prefilled(session, model, 700)) {
      for (int tokens : new int[] {1, 2, 7, 20, 64}) {
        for (int layer = 0; layer < LAYERS; layer++) {
          Draft draft = Draft.random(random, tokens);
          Given tree = treeStep(stream, layer, 700, draft);
          assertThat(worst(session, layer, 700, draft, tree))
              .as("seed %d, %d tokens, layer %d", seed, tokens, layer)
              .isLessThan(ROUNDING);
          stream.accept(layer);
        }
      }
    }
  }

  private static DecodeStream prefilled(KvSession session, Synthetic model, int tokens) {
    model.prefill(session, tokens);
    return session.decode();
  }

  /** The comparison itself: tokens that see all before them are told from a tree's. */
  @Test
  void aMaskThatIsIgnoredIsSeen() {
    Draft draft = Draft.random(new SplittableRandom(3), 12);
    try (KvSession session = open("planned", 300);
        DecodeStream stream = prefilled(session, new Synthetic(3, 300), 200);
        KvSession fork = session.fork();
        DecodeStream causal = fork.decode()) {
      Given unmasked = linear(causal, 0, 200, draft, IntStream.range(0, 12).toArray());
      assertThat(worst(session, 0, 200, draft, unmasked)).isGreaterThan(.1);
      assertThat(worst(session, 0, 200, draft, treeStep(stream, 0, 200, draft)))
          .isLessThan(ROUNDING);
    }
  }

  /**
   * A path that came true is as good as if its tokens had been sent one by one: the same rows, the
   * same later outputs, also where a page leaves the window meanwhile (from 700 on).
   */
  @ParameterizedTest
  @CsvSource({"700, next", "700, now", "710, next", "710, now"})
  void anAcceptedPathIsAppendedAsIfSentAlone(int context, String told) {
    SplittableRandom random = new SplittableRandom(context);
    Synthetic model = new Synthetic(context, context);
    Draft draft = Draft.of(random, -1, 0, 0, -1, 2, 4, 1, 5, 7, 8);
    int[] path = draft.pathTo(9);
    Draft after = Draft.of(random, -1);
    int end = context + path.length;
    try (KvSession session = open("sparse", context + 40);
        DecodeStream stream = prefilled(session, model, context);
        KvSession fork = session.fork();
        DecodeStream alone = fork.decode()) {
      for (int layer = 0; layer < LAYERS; layer++) {
        treeStep(stream, layer, context, draft);
        for (int i = 0; i < path.length; i++) {
          linear(alone, layer, context + i, draft, new int[] {path[i]});
        }
        if (told.equals("now")) {
          assertThat(stream.acceptNow(layer, path).getPosition()).isEqualTo(end);
        } else {
          stream.accept(layer, path);
        }
        Given first = linear(stream, layer, end, after, new int[] {0});
        Given expected = linear(alone, layer, end, after, new int[] {0});
        // A page that leaves the window with the accepted tokens is still exact in that very step.
        boolean same = told.equals("now") || context == 710;
        assertThat(first.difference(0, expected, 0)).isLessThan(same ? ROUNDING : .2);
        first = linear(stream, layer, end + 1, after, new int[] {0});
        expected = linear(alone, layer, end + 1, after, new int[] {0});
        assertThat(first.difference(0, expected, 0)).isLessThan(ROUNDING);
        assertThat(rows(session, layer, end + 2)).isEqualTo(rows(fork, layer, end + 2));
      }
    }
  }

  private static List<LoadResponse> rows(KvSession session, int layer, int tokens) {
    return session.load(layer, 0, tokens);
  }

  @Test
  void treesFollowTreesAndRejectedTokensLeaveNothingBehind() {
    SplittableRandom random = new SplittableRandom(8);
    Synthetic model = new Synthetic(8, 300);
    Draft last = Draft.of(random, -1);
    try (KvSession session = open("planned", 400);
        DecodeStream stream = prefilled(session, model, 300);
        KvSession fork = session.fork();
        DecodeStream alone = fork.decode()) {
      int position = 300;
      for (int round = 0; round < 6; round++) {
        Draft draft = Draft.random(random, 10);
        Given tree = treeStep(stream, 0, position, draft);
        int[] path = round % 3 == 2 ? new int[0] : draft.pathTo(random.nextInt(10));
        for (int i = 0; i < path.length; i++) {
          Given line = linear(alone, 0, position + i, draft, new int[] {path[i]});
          assertThat(tree.difference(path[i], line, 0)).as("round %d", round).isLessThan(.2);
        }
        stream.accept(0, path);
        position += path.length;
      }
      assertThat(position).isGreaterThan(303);
      Given first = linear(stream, 0, position, last, new int[] {0});
      Given expected = linear(alone, 0, position, last, new int[] {0});
      assertThat(first.difference(0, expected, 0)).isLessThan(ROUNDING);
      assertThat(rows(session, 0, position + 1)).isEqualTo(rows(fork, 0, position + 1));
    }
  }

  private static void refused(KvSession session, Code code, Send call, String... mentions) {
    ThrowingCallable sent =
        () -> {
          try (DecodeStream stream = session.decode()) {
            call.on(stream);
          }
        };
    assertThatThrownBy(sent)
        .isInstanceOfSatisfying(
            KvtierException.class,
            e -> {
              assertThat(e.code()).as("%s", e).isEqualTo(code);
              assertThat(e.getMessage()).contains(List.of(mentions));
            });
  }

  private interface Send {
    void on(DecodeStream stream);
  }

  @Test
  void whileATreeWaitsWrongMessagesAreRefusedAndChangeNothing() {
    SplittableRandom random = new SplittableRandom(9);
    Synthetic model = new Synthetic(9, 320);
    Draft draft = Draft.of(random, -1, 0, -1, 1);
    Draft next = Draft.of(random, -1);
    int[] one = {0};
    try (KvSession session = open("planned", 304)) {
      try (DecodeStream stream = prefilled(session, model, 300)) {
        treeStep(stream, 0, 300, draft);
      }
      refused(
          session,
          Code.PRECONDITION,
          stream -> linear(stream, 0, 300, next, one),
          "a tree of 4 tokens waits with layer 0");
      refused(session, Code.PRECONDITION, stream -> treeStep(stream, 0, 300, next), "4 tokens");
      refused(session, Code.INVALID, stream -> stream.acceptNow(0, 4), "accepted[0] is 4", "0..3");
      refused(session, Code.INVALID, stream -> stream.acceptNow(0, -1), "4294967295", "0..3");
      refused(session, Code.INVALID, stream -> stream.acceptNow(0, 1), "whose parent is 0", "-1");
      refused(session, Code.INVALID, stream -> stream.acceptNow(0, 0, 2), "accepted[1] is 2");
      refused(session, Code.INVALID, stream -> stream.acceptNow(0, 0, 1, 1), "accepted[2] is 1");
      refused(session, Code.INVALID, stream -> stream.acceptNow(2, 0), "layer is 2", "0..1");
      refused(session, Code.PRECONDITION, stream -> stream.acceptNow(1, 0), "no tree waits");
      refused(
          session,
          Code.PRECONDITION,
          stream -> accepting(stream, 0, 1).on(300, next),
          "position 300 of layer 0 is out of order",
          "302 comes next");
      refused(
          session,
          Code.EXHAUSTED,
          stream -> {
            stream.accept(0, 0, 1, 3);
            treeStep(stream, 0, 303, Draft.of(random, -1, 0, 0));
          },
          "2 tokens at position 303 go beyond tokens_max, 304");
      assertThatThrownBy(
              () -> {
                try (PrefillStream stream = session.prefill()) {
                  stream.chunk(0, 300, 1, model.keys(0, 300, 301), model.values(0, 300, 301));
                  stream.finish(301);
                }
              })
          .hasMessageContaining("a tree of 4 tokens waits with layer 0");
      try (KvSession fork = session.fork();
          DecodeStream alone = fork.decode();
          DecodeStream stream = session.decode()) {
        linear(alone, 0, 300, draft, new int[] {0, 1});
        stream.accept(0, 0, 1);
        Given given = linear(stream, 0, 302, next, one);
        assertThat(given.difference(0, linear(alone, 0, 302, next, one), 0)).isLessThan(ROUNDING);
      }
    }
  }

  private interface At {
    void on(int position, Draft draft);
  }

  private static At accepting(DecodeStream stream, int... nodes) {
    stream.accept(0, nodes);
    return (position, draft) -> linear(stream, 0, position, draft, new int[] {0});
  }

  @Test
  void nobodyElseSeesATreeThatWaitsAndClosingFreesIt() {
    long deviceBefore = service.worker().deviceBytesUsed();
    long tierBefore = service.tier().tier().bytesUsed();
    Draft draft = Draft.random(new SplittableRandom(10), 64);
    Synthetic model = new Synthetic(10, 200);
    try (KvSession session = open("planned", 400)) {
      DecodeStream stream = prefilled(session, model, 200);
      float[] query = model.query();
      List<GatheredHead> gathered = session.gather(0, query, 200);
      long deviceWith = service.worker().deviceBytesUsed();
      for (int layer = 0; layer < LAYERS; layer++) {
        treeStep(stream, layer, 200, draft);
      }
      assertThat(session.gather(0, query, 264)).isEqualTo(gathered);
      assertThat(service.worker().deviceBytesUsed()).isEqualTo(deviceWith);
      assertThatThrownBy(() -> session.load(0, 0, 201)).hasMessageContaining("200");
      try (KvSession fork = session.fork();
          DecodeStream alone = fork.decode()) {
        linear(alone, 0, 200, draft, new int[] {5});
      }
    }
    assertThat(service.worker().deviceBytesUsed()).isEqualTo(deviceBefore);
    assertThat(service.tier().tier().bytesUsed()).isEqualTo(tierBefore);
  }
}
