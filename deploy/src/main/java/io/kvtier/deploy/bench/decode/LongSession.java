package io.kvtier.deploy.bench.decode;

import com.google.protobuf.ByteString;
import io.kvtier.client.PageTransport;
import io.kvtier.coordinator.plan.PlanInputs;
import io.kvtier.coordinator.plan.Planner;
import io.kvtier.coordinator.plan.ResidualCurve;
import io.kvtier.deploy.bench.Benchmark.Progress;
import io.kvtier.gpuworker.cpu.CpuDevice;
import io.kvtier.gpuworker.session.PendingBytes;
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
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.UUID;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.function.UnaryOperator;

/**
 * A session of a long context: some layers of Llama-3.1-8B's geometry, with keys, values and
 * queries made so that attention is spread as it was measured on real traces ({@link
 * SpreadAttention}), planned from the prompt's last queries as any session is. One thread.
 */
final class LongSession implements AutoCloseable {
  static final long TIMEOUT_NS = 10_000_000_000L;

  private static final int CHUNK = 1024;
  private static final int WINDOW = 32;

  private final int layers;
  private final SpreadAttention model;
  private final Closing closing = new Closing();
  private final WorkerSession session;
  private final Plan plan;
  private int tokens;

  /**
   * A filled session.
   *
   * @param more tokens that may be decoded
   * @param budget device bytes as a share of full KV's
   */
  LongSession(
      int layers, int tokens, int more, double budget, PageTransport tier, Progress progress) {
    this(
        layers,
        tokens,
        more,
        budget,
        SpreadAttention.STEP_COSINE,
        UnaryOperator.identity(),
        tier,
        progress);
  }

  /**
   * The same under a plan that is changed by hand.
   *
   * @param stepCosine of a layer's successive queries
   */
  LongSession(
      int layers,
      int tokens,
      int more,
      double budget,
      double stepCosine,
      UnaryOperator<Plan> change,
      PageTransport tier,
      Progress progress) {
    this.layers = layers;
    this.model = new SpreadAttention(layers, 1, stepCosine);
    this.tokens = tokens;
    Session info = info(more, budget);
    try {
      CpuDevice device = closing.add(new CpuDevice(2 * info.getDeviceBytesMax() + (1L << 30)));
      ExecutorService background = closing.add(Executors.newVirtualThreadPerTaskExecutor());
      SessionLimits limits = new SessionLimits(64 << 20, TIMEOUT_NS);
      SessionHost host =
          new SessionHost(
              device, tier, background, limits, new PendingBytes(256 << 20), StepListener.NONE);
      session = SessionOpening.open(info, Prefix.NONE, host);
      closing.add(session::close);
      fill(progress);
      plan =
          session.finish(
              tokens,
              (of, count, curves, fixedBytes, pages) ->
                  change.apply(plan(of, count, curves, fixedBytes, pages)));
    } catch (RuntimeException e) {
      closing.closeAfter(e);
      throw e;
    }
  }

  private Session info(int more, double budget) {
    Geometry geometry =
        Geometry.newBuilder()
            .setLayers(layers)
            .setQHeads(SpreadAttention.Q_HEADS)
            .setKvHeads(SpreadAttention.KV_HEADS)
            .setHeadDim(SpreadAttention.HEAD_DIM)
            .setKvDtype(Dtype.DTYPE_BF16)
            .setModelFingerprint(ByteString.copyFrom(new byte[16]))
            .build();
    long full = (long) tokens * layers * SpreadAttention.KV_ROW * 2 * Short.BYTES;
    return Session.newBuilder()
        .setSessionId(UUID.randomUUID().toString())
        .setGeometry(geometry)
        .setTokensMax(tokens + more)
        .setDeviceBytesMax((long) (full * budget))
        .build();
  }

  private void fill(Progress progress) {
    for (int layer = 0; layer < layers; layer++) {
      for (int at = 0; at < tokens; at += CHUNK) {
        progress.at((long) layer * tokens + at, (long) layers * tokens, "filling");
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
        ResidualCurve flatCurve =
            ResidualCurve.of("curve", ks, residuals, Math.max(tokens, ks[ks.length - 1]));
        flat.add(curve.overlap() < 0 ? flatCurve : flatCurve.withOverlap("curve", curve.overlap()));
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
   * @param heard hears of each layer's step, and how many nanoseconds it took
   */
  void decode(int count, boolean hints, Progress progress, Heard heard) {
    for (int step = 0; step < count; step++) {
      progress.at(step, count, hints ? "decoding with hints" : "decoding");
      float[] query = model.nextQuery(0);
      for (int layer = 0; layer < layers; layer++) {
        boolean last = layer + 1 == layers;
        float[] next = last ? new float[0] : model.nextQuery(layer + 1);
        float[] hint = hints && !last ? model.near(next) : new float[0];
        float[] keys = model.keys(tokens, 1);
        float[] values = model.values(1);
        long startNs = System.nanoTime();
        StepResult result = session.step(layer, tokens, 1, query, keys, values, hint);
        heard.step(layer, result, System.nanoTime() - startNs);
        query = next;
      }
      tokens++;
    }
  }

  /** Who hears of steps. */
  interface Heard {
    void step(int layer, StepResult result, long ns);
  }

  Plan plan() {
    return plan;
  }

  @Override
  public void close() {
    closing.close();
  }
}
