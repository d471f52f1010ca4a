package io.kvtier.deploy.bench;

import com.google.protobuf.ByteString;
import io.kvtier.cachetier.CacheTierConfig;
import io.kvtier.client.DecodeStream;
import io.kvtier.client.KvSession;
import io.kvtier.client.KvtierClient;
import io.kvtier.client.PrefillStream;
import io.kvtier.client.SessionOptions;
import io.kvtier.coordinator.CoordinatorConfig;
import io.kvtier.deploy.service.AllInOne;
import io.kvtier.rpc.EndpointConfig;
import io.kvtier.v1.Dtype;
import io.kvtier.v1.Geometry;
import io.kvtier.v1.HeadClass;
import io.kvtier.v1.HeadPlan;
import io.kvtier.v1.Plan;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;
import java.util.SplittableRandom;
import java.util.function.Function;
import java.util.function.ToDoubleFunction;
import java.util.logging.Level;
import java.util.logging.Logger;

/**
 * What a tier costs those who gain nothing by it: sessions that share no prompt, all of whose heads
 * are resident, with a tier that gets their pages, and without one. As the shipped model's engine
 * runs them, its own work included; without an engine, which shows where the time goes; and with an
 * engine that computes as much for each byte of KV as the models that a tier is for.
 */
public final class OffloadBenchmark implements Benchmark {
  private static final long MEMORY = 1L << 30;
  private static final int LAYERS = 2;
  private static final int Q_HEADS = 32;
  private static final int KV_HEADS = 8;
  private static final int HEAD_DIM = 128;
  private static final int PROMPT = 4096;
  private static final int CHUNK = 512;

  /** Three pages of each layer fill up. */
  private static final int STEPS = 192;

  /** Until then the services' own code is still being compiled, on the engine's processors. */
  private static final int WARMUP_ROUNDS = 15;

  private static final int ROUNDS = 11;

  /** A round takes a quarter of a minute, nearly all of it the engine's. */
  private static final int WIDE_WARMUP_ROUNDS = 1;

  private static final int WIDE_ROUNDS = 7;
  private static final int WIDE_PROMPT = 1024;

  /** Two pages fill up. */
  private static final int WIDE_STEPS = 128;

  private static final double NANOS_PER_MS = 1e6;
  private static final String GOAL = "<= 1.02";

  /** Held, since a logger that nobody holds forgets its level. */
  private static final Logger SERVICES_LOG = Logger.getLogger("io.kvtier");

  @Override
  public String name() {
    return "offload";
  }

  @Override
  public String description() {
    return "decoding with a tier that is of no use, beside decoding without one";
  }

  /**
   * Milliseconds of one session.
   *
   * @param token of a token, on average: every 64th fills a page of each layer
   * @param step of a layer's step, the median
   */
  private record Times(double prompt, double token, double step) {}

  /** Of each round, with a tier and without one. */
  private record Both<T>(List<T> ours, List<T> without) {}

  /** What runs the rounds, and tells how far it is. */
  private record Turns(KvtierClient ours, KvtierClient without, Progress progress, long all) {
    /** Runs a session with a tier and one without, in turns; who goes first takes turns, too. */
    <T> Both<T> run(
        long done, int warmupRounds, int rounds, String what, Function<KvtierClient, T> session) {
      Both<T> times = new Both<>(new ArrayList<>(), new ArrayList<>());
      for (int round = -warmupRounds; round < rounds; round++) {
        boolean oursFirst = (round & 1) == 0;
        T first = session.apply(oursFirst ? ours : without);
        T second = session.apply(oursFirst ? without : ours);
        if (round >= 0) {
          times.ours.add(oursFirst ? first : second);
          times.without.add(oursFirst ? second : first);
        }
        progress.at(done + warmupRounds + round + 1, all, what);
      }
      return times;
    }
  }

  @Override
  public List<BenchRow> run(BenchSettings settings, Progress progress) {
    SERVICES_LOG.setLevel(Level.WARNING);
    CacheTierConfig tier = new CacheTierConfig(EndpointConfig.loopback(), MEMORY, Optional.empty());
    long shippedRounds = WARMUP_ROUNDS + ROUNDS;
    long wideRounds = WIDE_WARMUP_ROUNDS + WIDE_ROUNDS;
    List<BenchRow> rows = new ArrayList<>();
    try (AllInOne services = AllInOne.start(CoordinatorConfig.defaults(), tier, MEMORY);
        TierlessWorker without = TierlessWorker.start(MEMORY);
        KvtierClient ourClient = KvtierClient.connect(services.coordinator().target());
        KvtierClient otherClient = KvtierClient.connect(without.target())) {
      Turns turns = new Turns(ourClient, otherClient, progress, 2 * shippedRounds + wideRounds);
      try (OffloadedEngine engine = OffloadedEngine.shipped(settings.quality(), STEPS)) {
        String what = "the shipped model";
        rows.addAll(engineRows(what, turns.run(0, WARMUP_ROUNDS, ROUNDS, what, engine::session)));
      }
      Rows alone = new Rows();
      rows.addAll(
          aloneRows(
              turns.run(
                  shippedRounds, WARMUP_ROUNDS, ROUNDS, "without an engine", alone::session)));
      progress.at(2 * shippedRounds, turns.all(), "making a layer of 218 M weights");
      int tokens = Math.min(settings.quality().context(), WIDE_PROMPT);
      try (OffloadedEngine engine = OffloadedEngine.wide(tokens, WIDE_STEPS)) {
        String what = "a layer of Llama-3.1-8B's shape";
        rows.addAll(
            engineRows(
                what,
                turns.run(
                    2 * shippedRounds, WIDE_WARMUP_ROUNDS, WIDE_ROUNDS, what, engine::session)));
      }
    }
    return rows;
  }

  private List<BenchRow> engineRows(String what, Both<OffloadedEngine.Times> times) {
    OffloadedEngine.Times one = times.ours().getFirst();
    return List.of(
        row(
            "%s: prefill %,d tokens, send them, decode %d / without a tier"
                .formatted(what, one.tokens(), one.generated()),
            times,
            OffloadedEngine.Times::all,
            GOAL),
        row(
            "its processor time, all services' included / without a tier",
            times,
            OffloadedEngine.Times::processor,
            GOAL));
  }

  private List<BenchRow> aloneRows(Both<Times> times) {
    return List.of(
        row(
            "no engine: decode a token of %d layers at %,d tokens / without a tier"
                .formatted(LAYERS, PROMPT),
            times,
            Times::token,
            GOAL),
        row("its median step of a layer / without a tier", times, Times::step, GOAL),
        row(
            "send that prompt, finished ahead of its pages / without a tier",
            times,
            Times::prompt,
            ""));
  }

  /** The ratio is the median of the rounds' own, on which the machine's other work falls alike. */
  private <T> BenchRow row(String what, Both<T> times, ToDoubleFunction<T> of, String goal) {
    double[] ours = times.ours().stream().mapToDouble(of).toArray();
    double[] without = times.without().stream().mapToDouble(of).toArray();
    double[] ratios = new double[ours.length];
    for (int round = 0; round < ratios.length; round++) {
      ratios[round] = ours[round] / without[round];
    }
    return new BenchRow(what, median(ours), median(without), median(ratios), "ms", goal, command());
  }

  private static double median(double[] values) {
    return Arrays.stream(values).sorted().toArray()[values.length / 2];
  }

  /** A plan of dense heads alone. */
  static Plan allResident(Geometry geometry) {
    Plan.Builder plan = Plan.newBuilder().setDominantTokensMin(1);
    for (int head = 0; head < geometry.getLayers() * geometry.getKvHeads(); head++) {
      plan.addHeads(
          HeadPlan.newBuilder()
              .setLayer(head / geometry.getKvHeads())
              .setKvHead(head % geometry.getKvHeads())
              .setHeadClass(HeadClass.HEAD_CLASS_DENSE));
    }
    return plan.build();
  }

  /** Keys, values and queries; the same for all sessions, whose pages are their own. */
  private static final class Rows {
    private final float[] keys = gaussian(1, CHUNK * KV_HEADS * HEAD_DIM);
    private final float[] values = gaussian(2, CHUNK * KV_HEADS * HEAD_DIM);
    private final float[] key = gaussian(3, KV_HEADS * HEAD_DIM);
    private final float[] query = gaussian(4, Q_HEADS * HEAD_DIM);
    private final float[] output = new float[Q_HEADS * HEAD_DIM];
    private final SessionOptions options =
        new SessionOptions(geometry(), PROMPT + STEPS, 0, Optional.of(allResident(geometry())));

    private static float[] gaussian(long seed, int length) {
      SplittableRandom random = new SplittableRandom(seed);
      float[] x = new float[length];
      for (int i = 0; i < length; i++) {
        x[i] = (float) random.nextGaussian();
      }
      return x;
    }

    private static Geometry geometry() {
      return Geometry.newBuilder()
          .setLayers(LAYERS)
          .setQHeads(Q_HEADS)
          .setKvHeads(KV_HEADS)
          .setHeadDim(HEAD_DIM)
          .setKvDtype(Dtype.DTYPE_BF16)
          .setModelFingerprint(ByteString.copyFromUtf8("offload or not: "))
          .build();
    }

    Times session(KvtierClient client) {
      try (KvSession session = client.open(options)) {
        long startNs = System.nanoTime();
        try (PrefillStream prefill = session.prefill()) {
          for (int layer = 0; layer < LAYERS; layer++) {
            for (int at = 0; at < PROMPT; at += CHUNK) {
              prefill.chunk(layer, at, CHUNK, keys, values);
            }
          }
          var _ = prefill.finishAhead(PROMPT);
        }
        long sentNs = System.nanoTime();
        double[] steps = new double[STEPS * LAYERS];
        try (DecodeStream decode = session.decode()) {
          for (int i = 0; i < steps.length; i++) {
            int position = PROMPT + i / LAYERS;
            long stepNs = System.nanoTime();
            var _ = decode.step(i % LAYERS, position, 1, query, key, key, new float[0], output);
            steps[i] = (System.nanoTime() - stepNs) / NANOS_PER_MS;
          }
        }
        double decoded = (System.nanoTime() - sentNs) / NANOS_PER_MS;
        Arrays.sort(steps);
        return new Times(
            (sentNs - startNs) / NANOS_PER_MS, decoded / STEPS, steps[steps.length / 2]);
      }
    }
  }
}
