package io.kvtier.deploy.bench.decode;

import io.kvtier.deploy.bench.BenchRow;
import io.kvtier.deploy.bench.Benchmark.Progress;
import io.kvtier.rpc.Closing;
import io.kvtier.v1.AheadUse;
import io.kvtier.v1.HeadClass;
import io.kvtier.v1.Plan;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;

/**
 * What fetching ahead without hints finds, and what it is worth: steps of two layers of
 * Llama-3.1-8B's geometry whose hot set keeps nothing, so that each row that a step finds has come
 * ahead of it; once with what the last query chose fetched ahead, once with nothing. Successive
 * queries are much alike, as large models' are reported to be, and then as little as they are
 * elsewhere in this benchmark. The tier is a process of its own, a round trip away.
 */
final class AheadPart {
  private static final int LAYERS = 2;
  private static final int TOKENS_MAX = 32 << 10;
  private static final int WARM_STEPS = 20;
  private static final int STEPS = 40;
  private static final double[] COSINES = {.995, SpreadAttention.STEP_COSINE};
  private static final double BUDGET = 1. / 4;

  private final int tokens;
  private final String command;

  AheadPart(int tokens, String command) {
    this.tokens = Math.min(tokens, TOKENS_MAX);
    this.command = command;
  }

  /** Sums over the second layer's steps; bytes are of both layers'. */
  private static final class Sum {
    private long asked;
    private long found;
    private long selected;
    private long bytes;
    private long unhiddenNs;
    private long wallNs;
  }

  List<BenchRow> run(Progress progress) throws IOException {
    List<BenchRow> rows = new ArrayList<>();
    try (Closing closing = new Closing()) {
      DistantTier tier = DistantTier.start(closing);
      for (double cosine : COSINES) {
        rows.addAll(run(cosine, tier, progress));
      }
    }
    return rows;
  }

  private List<BenchRow> run(double cosine, DistantTier tier, Progress progress) {
    Sum last = decode(cosine, AheadUse.AHEAD_USE_LAST, tier, progress);
    Sum none = decode(cosine, AheadUse.AHEAD_USE_NOTHING, tier, progress);
    String name =
        String.format(
            Locale.ROOT, "ahead without hints, %dk, queries' cosine %.3f: ", tokens >> 10, cosine);
    return List.of(
        row(name + "rows fetched ahead a step", (double) last.asked / STEPS, Double.NaN, ""),
        row(name + "of them chosen", (double) last.found / last.asked, Double.NaN, ""),
        row(name + "of the chosen found", (double) last.found / last.selected, Double.NaN, ""),
        row(name + "kB moved a step of two layers / nothing ahead", kb(last), kb(none), "kB"),
        row(name + "unhidden share / nothing ahead", unhidden(last), unhidden(none), ""));
  }

  private Sum decode(double cosine, AheadUse use, DistantTier tier, Progress progress) {
    try (LongSession session =
        new LongSession(
            LAYERS,
            tokens,
            WARM_STEPS + STEPS,
            BUDGET,
            cosine,
            plan -> keepingNothing(plan, use),
            tier,
            progress)) {
      session.decode(WARM_STEPS, false, progress, (layer, result, ns) -> {});
      Sum sum = new Sum();
      session.decode(
          STEPS,
          false,
          progress,
          (layer, result, ns) -> {
            // The second layer's rows come while the first attends.
            sum.bytes += result.bytesFetched();
            if (layer == 1) {
              sum.asked += result.prefetched();
              sum.found += result.hit();
              sum.selected += result.selected();
              sum.unhiddenNs += result.unhiddenNs();
              sum.wallNs += ns;
            }
          });
      return sum;
    }
  }

  private static Plan keepingNothing(Plan plan, AheadUse use) {
    Plan.Builder changed = plan.toBuilder().setHotSetBytes(0);
    changed
        .getHeadsBuilderList()
        .forEach(head -> {
          if (head.getHeadClass() == HeadClass.HEAD_CLASS_SPARSE) {
            head.setAhead(use);
          }
        });
    return changed.build();
  }

  private static double kb(Sum sum) {
    return sum.bytes / 1e3 / STEPS;
  }

  private static double unhidden(Sum sum) {
    return (double) sum.unhiddenNs / sum.wallNs;
  }

  private BenchRow row(String name, double value, double reference, String unit) {
    return new BenchRow(name, value, reference, value / reference, unit, "", command);
  }
}
