package io.kvtier.deploy.bench.decode;

import com.google.protobuf.ByteString;
import io.kvtier.coordinator.plan.PlanInputs;
import io.kvtier.coordinator.plan.Planner;
import io.kvtier.coordinator.plan.ResidualCurve;
import io.kvtier.deploy.bench.BenchRow;
import io.kvtier.deploy.bench.Benchmark.Progress;
import io.kvtier.gpuworker.cpu.CpuDevice;
import io.kvtier.gpuworker.session.Prefix;
import io.kvtier.gpuworker.session.SessionHost;
import io.kvtier.gpuworker.session.SessionLimits;
import io.kvtier.gpuworker.session.SessionOpening;
import io.kvtier.gpuworker.session.StepResult;
import io.kvtier.gpuworker.session.WorkerSession;
import io.kvtier.gpuworker.trace.StepListener;
import io.kvtier.page.Codec;
import io.kvtier.page.PageLayout;
import io.kvtier.v1.Dtype;
import io.kvtier.v1.Geometry;
import io.kvtier.v1.Plan;
import io.kvtier.v1.Session;
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
 * ({@link SpreadAttention}), planned from the prompt's last queries as any session is. The second
 * layer gets a hint of its query, the first does not.
 */
final class LongContextPart {
  private static final int MODEL_LAYERS = 32;
  private static final int LAYERS = 2;
  private static final int CHUNK = 1024;
  private static final int WINDOW = 32;
  private static final long ROUND_TRIP_NS = 500_000;
  private static final double BYTES_PER_NS = 1.5;
  private static final double GOAL_MB = 16;
  private static final long TIMEOUT_NS = 10_000_000_000L;

  private final int tokens;
  private final int steps;
  private final String command;

  /**
   * A part.
   *
   * @param steps tokens decoded for each budget; the second half of them counts as steady
   */
  LongContextPart(int tokens, int steps, String command) {
    this.tokens = tokens;
    this.steps = steps;
    this.command = command;
  }

  /** Sums over steps of one layer. */
  private static final class Sum {
    private long bytes;
    private long selected;
    private long hit;
    private long computeNs;
    private long unhiddenNs;

    void add(StepResult result) {
      bytes += result.bytesFetched();
      selected += result.selected();
      hit += result.hit();
      computeNs += result.computeNs();
      unhiddenNs += result.unhiddenNs();
    }

    double unhidden() {
      return (double) unhiddenNs / (computeNs + unhiddenNs);
    }
  }

  List<BenchRow> run(double[] budgets, Progress progress) {
    List<BenchRow> rows = new ArrayList<>();
    for (double budget : budgets) {
      rows.addAll(run(budget, progress));
    }
    return rows;
  }

  private List<BenchRow> run(double budget, Progress progress) {
    SpreadAttention model = new SpreadAttention(LAYERS, 1);
    Session info = info(budget);
    long memory = 2 * info.getDeviceBytesMax() + (1L << 30);
    PageLayout layout =
        new PageLayout(Codec.ROT4, Codec.ROT4, SpreadAttention.KV_HEADS, SpreadAttention.HEAD_DIM);
    SessionLimits limits = new SessionLimits(64 << 20, TIMEOUT_NS);
    try (CpuDevice device = new CpuDevice(memory);
        DistantTier tier = new DistantTier(layout, ROUND_TRIP_NS, BYTES_PER_NS);
        ExecutorService background = Executors.newVirtualThreadPerTaskExecutor()) {
      SessionHost host = new SessionHost(device, tier, background, limits, StepListener.NONE);
      WorkerSession session = SessionOpening.open(info, Prefix.NONE, host);
      try {
        fill(session, model, progress);
        Plan plan = session.finish(tokens, LongContextPart::plan);
        return decode(session, model, plan, budget, progress);
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
        .setTokensMax(tokens + steps)
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

  private List<BenchRow> decode(
      WorkerSession session, SpreadAttention model, Plan plan, double budget, Progress progress) {
    Sum[] all = {new Sum(), new Sum()};
    Sum[] steady = {new Sum(), new Sum()};
    for (int step = 0; step < steps; step++) {
      progress.at(step, steps, "decoding");
      float[] first = model.nextQuery(0);
      float[] second = model.nextQuery(1);
      float[] hint = model.near(second);
      for (int layer = 0; layer < LAYERS; layer++) {
        StepResult result =
            session.step(
                layer,
                tokens + step,
                1,
                layer == 0 ? first : second,
                model.keys(tokens + step, 1),
                model.values(1),
                layer == 0 ? hint : new float[0]);
        all[layer].add(result);
        if (step >= steps / 2) {
          steady[layer].add(result);
        }
      }
    }
    String name =
        String.format(
            Locale.ROOT, "%dk, 8B geometry, 1/%d: ", tokens >> 10, Math.round(1 / budget));
    int half = steps - steps / 2;
    List<BenchRow> rows = new ArrayList<>();
    double predicted =
        plan.getHeadsList().stream().mapToLong(head -> head.getFetchBytes()).sum()
            / (double) LAYERS;
    rows.add(row(name + "MB moved a token, first " + steps, mega(all[0], steps), ""));
    double moved = mega(steady[0], half);
    rows.add(row(name + "MB moved a token, later", moved, goal(moved, GOAL_MB)));
    rows.add(row(name + "MB moved a token with hints, later", mega(steady[1], half), ""));
    rows.add(row(name + "MB a token predicted by the plan", predicted * MODEL_LAYERS / 1e6, ""));
    rows.add(row(name + "tokens chosen a head", perHead(steady[0].selected, half), ""));
    rows.add(row(name + "of them in the hot set", (double) steady[0].hit / steady[0].selected, ""));
    rows.add(row(name + "hot set, share of rows", hotShare(plan), ""));
    rows.add(
        row(
            name + "unhidden share of a step",
            steady[0].unhidden(),
            goal(steady[0].unhidden(), .10)));
    rows.add(
        row(
            name + "unhidden share, with hints",
            steady[1].unhidden(),
            goal(steady[1].unhidden(), .05)));
    rows.add(
        row(name + "ms a layer", (steady[0].computeNs + steady[0].unhiddenNs) / 1e6 / half, ""));
    return rows;
  }

  private static double perHead(long selected, int count) {
    return (double) selected / count / SpreadAttention.KV_HEADS;
  }

  private double hotShare(Plan plan) {
    return (double) plan.getHotSetBytes()
        / ((double) tokens * LAYERS * SpreadAttention.KV_HEADS * 98);
  }

  private static double mega(Sum sum, int count) {
    return sum.bytes / (double) count * MODEL_LAYERS / 1e6;
  }

  private static String goal(double value, double bound) {
    return String.format(Locale.ROOT, "<= %.3g: %s", bound, value <= bound ? "met" : "missed");
  }

  private BenchRow row(String name, double value, String goal) {
    return new BenchRow(name, value, Double.NaN, Double.NaN, "", goal, command);
  }
}
