package io.kvtier.deploy.bench.decode;

import com.google.protobuf.ByteString;
import io.kvtier.client.PagesClient;
import io.kvtier.coordinator.plan.PlanInputs;
import io.kvtier.coordinator.plan.Planner;
import io.kvtier.coordinator.plan.ResidualCurve;
import io.kvtier.deploy.bench.BenchRow;
import io.kvtier.deploy.bench.Benchmark.Progress;
import io.kvtier.deploy.bench.TierProcess;
import io.kvtier.gpuworker.cpu.CpuDevice;
import io.kvtier.gpuworker.session.Prefix;
import io.kvtier.gpuworker.session.SessionHost;
import io.kvtier.gpuworker.session.SessionLimits;
import io.kvtier.gpuworker.session.SessionOpening;
import io.kvtier.gpuworker.session.StepResult;
import io.kvtier.gpuworker.session.WorkerSession;
import io.kvtier.gpuworker.trace.StepListener;
import io.kvtier.rpc.Closing;
import io.kvtier.v1.Dtype;
import io.kvtier.v1.Geometry;
import io.kvtier.v1.Plan;
import io.kvtier.v1.Session;
import java.io.IOException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.UUID;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;

/**
 * What a token moves and waits for at 128k tokens of Llama-3.1-8B's geometry: two of its layers,
 * with keys, values and queries made so that attention is spread as it was measured on real traces
 * ({@link SpreadAttention}), planned from the prompt's last queries as any session is. The tier is
 * a process of its own, over TCP, a round trip further away than it is. First no layer gets a hint
 * of its query, then the second does.
 */
final class LongContextPart {
  private static final int MODEL_LAYERS = 32;
  private static final int LAYERS = 2;
  private static final int CHUNK = 1024;
  private static final int WINDOW = 32;
  private static final long ROUND_TRIP_NS = 500_000;
  private static final long TIER_BYTES = 1L << 30;
  private static final double GOAL_MB = 16;
  private static final double UNHIDDEN = .10;
  private static final double UNHIDDEN_HINTED = .05;
  private static final long TIMEOUT_NS = 10_000_000_000L;

  private final int tokens;
  private final int steps;
  private final String command;

  /**
   * A part.
   *
   * @param steps tokens decoded for each budget after half as many, and as many again with hints
   */
  LongContextPart(int tokens, int steps, String command) {
    this.tokens = tokens;
    this.steps = steps;
    this.command = command;
  }

  /** Sums over steps. */
  private static final class Sum {
    private int steps;
    private long bytes;
    private long selected;
    private long hit;
    private long late;
    private long wallNs;
    private long computeNs;
    private long unhiddenNs;

    void add(StepResult result, long ns) {
      steps++;
      bytes += result.bytesFetched();
      selected += result.selected();
      hit += result.hit();
      late += result.late();
      wallNs += ns;
      computeNs += result.computeNs();
      unhiddenNs += result.unhiddenNs();
    }

    /** Megabytes of a token of the whole model. */
    double mega() {
      return bytes / (double) steps * MODEL_LAYERS / 1e6;
    }

    double unhidden() {
      return (double) unhiddenNs / wallNs;
    }

    /** What is neither work of the step nor waiting for a fetch: a hint's choice goes first. */
    double behindHint() {
      return (double) (wallNs - computeNs - unhiddenNs) / wallNs;
    }

    double msLayer() {
      return wallNs / 1e6 / steps;
    }
  }

  List<BenchRow> run(double[] budgets, Progress progress) throws IOException {
    List<BenchRow> rows = new ArrayList<>();
    try (Closing closing = new Closing()) {
      TierProcess process =
          closing.add(TierProcess.start(TierProcess.directory(closing), TIER_BYTES));
      PagesClient client =
          closing.add(
              new PagesClient(
                  process.target(false),
                  Duration.ofNanos(TIMEOUT_NS),
                  PagesClient.Option.WIRE_ONLY));
      DistantTier tier = new DistantTier(client, ROUND_TRIP_NS);
      for (double budget : budgets) {
        rows.addAll(run(budget, tier, progress));
      }
    }
    return rows;
  }

  private List<BenchRow> run(double budget, DistantTier tier, Progress progress) {
    SpreadAttention model = new SpreadAttention(LAYERS, 1);
    Session info = info(budget);
    long memory = 2 * info.getDeviceBytesMax() + (1L << 30);
    SessionLimits limits = new SessionLimits(64 << 20, TIMEOUT_NS);
    try (CpuDevice device = new CpuDevice(memory);
        ExecutorService background = Executors.newVirtualThreadPerTaskExecutor()) {
      SessionHost host = new SessionHost(device, tier, background, limits, StepListener.NONE);
      WorkerSession session = SessionOpening.open(info, Prefix.NONE, host);
      try {
        fill(session, model, progress);
        Plan plan = session.finish(tokens, LongContextPart::plan);
        String name =
            String.format(
                Locale.ROOT, "%dk, 8B geometry, 1/%d: ", tokens >> 10, Math.round(1 / budget));
        List<BenchRow> rows = new ArrayList<>();
        Sum[] first = decode(session, model, tokens, steps / 2, false, progress);
        rows.add(row(name + "MB moved a token, first " + steps / 2, both(first).mega(), ""));
        Sum[] steady = decode(session, model, tokens + steps / 2, steps, false, progress);
        rows.addAll(rows(name, plan, both(steady)));
        var _ = decode(session, model, tokens + steps * 3 / 2, steps / 2, true, progress);
        Sum[] hinted = decode(session, model, tokens + 2 * steps, steps, true, progress);
        rows.addAll(hintedRows(name, hinted));
        return rows;
      } finally {
        session.close();
      }
    }
  }

  private Session info(double budget) {
    Geometry geometry =
        Geometry.newBuilder()
            .setLayers(LAYERS)
            .setQHeads(SpreadAttention.Q_HEADS)
            .setKvHeads(SpreadAttention.KV_HEADS)
            .setHeadDim(SpreadAttention.HEAD_DIM)
            .setKvDtype(Dtype.DTYPE_BF16)
            .setModelFingerprint(ByteString.copyFrom(new byte[16]))
            .build();
    long full = (long) tokens * LAYERS * SpreadAttention.KV_ROW * 2 * Short.BYTES;
    return Session.newBuilder()
        .setSessionId(UUID.randomUUID().toString())
        .setGeometry(geometry)
        .setTokensMax(tokens + 3 * steps)
        .setDeviceBytesMax((long) (full * budget))
        .build();
  }

  private void fill(WorkerSession session, SpreadAttention model, Progress progress) {
    for (int layer = 0; layer < LAYERS; layer++) {
      for (int at = 0; at < tokens; at += CHUNK) {
        progress.at((long) layer * tokens + at, (long) LAYERS * tokens, "filling");
        int n = Math.min(CHUNK, tokens - at);
        var _ = session.append(layer, at, n, model.keys(at, n), model.values(n));
      }
      float[] queries = new float[WINDOW * SpreadAttention.Q_ROW];
      for (int i = 0; i < WINDOW; i++) {
        float[] query = model.nextQuery(layer);
        System.arraycopy(query, 0, queries, i * query.length, query.length);
      }
      var _ = session.setQueries(layer, WINDOW, queries);
    }
  }

  private static Plan plan(
      Session session,
      int tokens,
      io.kvtier.gpuworker.core.ResidualCurve[][] curves,
      long fixedBytes,
      int pages) {
    List<ResidualCurve> flat = new ArrayList<>();
    for (var ofLayer : curves) {
      for (var curve : ofLayer) {
        int[] ks = new int[curve.points()];
        float[] residuals = new float[curve.points()];
        Arrays.setAll(ks, curve::k);
        for (int i = 0; i < residuals.length; i++) {
          residuals[i] = curve.residual(i);
        }
        flat.add(ResidualCurve.of("curve", ks, residuals, Math.max(tokens, ks[ks.length - 1])));
      }
    }
    return Planner.plan(
        new PlanInputs(
            session.getGeometry(), tokens, session.getDeviceBytesMax(), fixedBytes, pages, flat));
  }

  /**
   * Decodes tokens.
   *
   * @param hints whether each layer but the first is told its query while the one before attends
   * @return one sum a layer
   */
  private static Sum[] decode(
      WorkerSession session,
      SpreadAttention model,
      int from,
      int count,
      boolean hints,
      Progress progress) {
    Sum[] sums = {new Sum(), new Sum()};
    for (int step = 0; step < count; step++) {
      progress.at(step, count, hints ? "decoding with hints" : "decoding");
      float[] first = model.nextQuery(0);
      float[] second = model.nextQuery(1);
      float[] hint = hints ? model.near(second) : new float[0];
      for (int layer = 0; layer < LAYERS; layer++) {
        float[] query = layer == 0 ? first : second;
        float[] keys = model.keys(from + step, 1);
        float[] values = model.values(1);
        long startNs = System.nanoTime();
        StepResult result =
            session.step(
                layer, from + step, 1, query, keys, values, layer == 0 ? hint : new float[0]);
        sums[layer].add(result, System.nanoTime() - startNs);
      }
    }
    return sums;
  }

  private static Sum both(Sum[] layers) {
    Sum both = new Sum();
    for (Sum layer : layers) {
      both.steps += layer.steps;
      both.bytes += layer.bytes;
      both.selected += layer.selected;
      both.hit += layer.hit;
      both.late += layer.late;
      both.wallNs += layer.wallNs;
      both.computeNs += layer.computeNs;
      both.unhiddenNs += layer.unhiddenNs;
    }
    return both;
  }

  private List<BenchRow> rows(String name, Plan plan, Sum sum) {
    List<BenchRow> rows = new ArrayList<>();
    double predicted =
        plan.getHeadsList().stream().mapToLong(head -> head.getFetchBytes()).sum()
            / (double) LAYERS;
    rows.add(row(name + "MB moved a token, later", sum.mega(), goal(sum.mega(), GOAL_MB)));
    rows.add(row(name + "MB a token predicted by the plan", predicted * MODEL_LAYERS / 1e6, ""));
    rows.add(
        row(
            name + "tokens chosen a head",
            (double) sum.selected / sum.steps / SpreadAttention.KV_HEADS,
            ""));
    rows.add(row(name + "of them in the hot set", (double) sum.hit / sum.selected, ""));
    rows.add(row(name + "hot set, share of rows", hotShare(plan), ""));
    rows.add(
        row(name + "unhidden share of a step", sum.unhidden(), goal(sum.unhidden(), UNHIDDEN)));
    rows.add(row(name + "ms a layer", sum.msLayer(), ""));
    return rows;
  }

  /** Bytes are of both layers: a hint's rows come while the layer before has its step. */
  private List<BenchRow> hintedRows(String name, Sum[] layers) {
    Sum sum = layers[1];
    double mega = both(layers).mega();
    List<BenchRow> rows = new ArrayList<>();
    rows.add(row(name + "with hints: MB moved a token", mega, goal(mega, GOAL_MB)));
    rows.add(row(name + "with hints: found or on their way", (double) sum.hit / sum.selected, ""));
    rows.add(row(name + "with hints: still on their way", (double) sum.late / sum.selected, ""));
    rows.add(
        row(
            name + "with hints: unhidden share",
            sum.unhidden(),
            goal(sum.unhidden(), UNHIDDEN_HINTED)));
    rows.add(row(name + "with hints: behind the hint's choice", sum.behindHint(), ""));
    rows.add(
        row(name + "with hints: unhidden, the layer that gives one", layers[0].unhidden(), ""));
    rows.add(row(name + "with hints: ms a layer", both(layers).msLayer(), ""));
    return rows;
  }

  private double hotShare(Plan plan) {
    return (double) plan.getHotSetBytes()
        / ((double) tokens * LAYERS * SpreadAttention.KV_HEADS * 98);
  }

  private static String goal(double value, double bound) {
    return String.format(Locale.ROOT, "<= %.3g: %s", bound, value <= bound ? "met" : "missed");
  }

  private BenchRow row(String name, double value, String goal) {
    return new BenchRow(name, value, Double.NaN, Double.NaN, "", goal, command);
  }
}
