package io.kvtier.deploy.bench.decode;

import io.kvtier.deploy.bench.BenchRow;
import io.kvtier.deploy.bench.Benchmark.Progress;
import io.kvtier.gpuworker.session.StepResult;
import io.kvtier.rpc.Closing;
import io.kvtier.v1.Plan;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;

/**
 * What a token moves and waits for at 128k tokens of Llama-3.1-8B's geometry, of which a {@link
 * LongSession} has two layers. The tier is a process of its own, over TCP, a round trip further
 * away than it is. First no layer gets a hint of its query, then the second does.
 */
final class LongContextPart {
  private static final int MODEL_LAYERS = 32;
  private static final int LAYERS = 2;
  private static final double GOAL_MB = 16;

  /**
   * Steps after the first and before those measured: until then the hot set fills where it has room
   * for most rows, and the virtual machine still compiles what it runs.
   */
  private static final int SETTLING_STEPS = 300;

  private static final double UNHIDDEN = .10;
  private static final double UNHIDDEN_HINTED = .05;

  private final int tokens;
  private final int steps;
  private final String command;

  /**
   * A part.
   *
   * @param steps tokens decoded for each budget once it has settled, and as many again with hints
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
      DistantTier tier = DistantTier.start(closing);
      for (double budget : budgets) {
        rows.addAll(run(budget, tier, progress));
      }
    }
    return rows;
  }

  private List<BenchRow> run(double budget, DistantTier tier, Progress progress) {
    int more = SETTLING_STEPS + 3 * steps;
    try (LongSession session = new LongSession(LAYERS, tokens, more, budget, tier, progress)) {
      String name =
          String.format(
              Locale.ROOT, "%dk, 8B geometry, 1/%d: ", tokens >> 10, Math.round(1 / budget));
      List<BenchRow> rows = new ArrayList<>();
      Sum[] first = decode(session, steps / 2, false, progress);
      rows.add(row(name + "MB moved a token, first " + steps / 2, both(first).mega(), ""));
      rows.add(row(name + "unhidden share, first " + steps / 2, both(first).unhidden(), ""));
      var _ = decode(session, SETTLING_STEPS, false, progress);
      Sum[] steady = decode(session, steps, false, progress);
      rows.addAll(rows(name, session.plan(), both(steady)));
      var _ = decode(session, steps / 2, true, progress);
      Sum[] hinted = decode(session, steps, true, progress);
      rows.addAll(hintedRows(name, hinted));
      return rows;
    }
  }

  private static Sum[] decode(LongSession session, int count, boolean hints, Progress progress) {
    Sum[] sums = {new Sum(), new Sum()};
    session.decode(count, hints, progress, (layer, result, ns) -> sums[layer].add(result, ns));
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
