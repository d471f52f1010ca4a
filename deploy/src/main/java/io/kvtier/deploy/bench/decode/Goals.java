package io.kvtier.deploy.bench.decode;

import io.kvtier.deploy.bench.BenchRow;
import io.kvtier.deploy.bench.decode.Measurement.Configuration;
import io.kvtier.v1.PlanMode;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;

/** Turns tallies into rows, and holds them to their goals. */
final class Goals {
  private static final double DIVERGENCE = .010;
  private static final double OF_TAILORKV = 1. / 3;
  private static final double OF_TAILORKV_AT = 1. / 16;
  private static final double ERROR_MEAN = .075;
  private static final double ERROR_P99 = .31;
  private static final double[] CAPTURED = {.94, .977};
  private static final double ROWS_WITHIN = .97;

  private final String command;

  Goals(String command) {
    this.command = command;
  }

  List<BenchRow> ofText(List<Configuration> configurations, Measurement measurement) {
    List<BenchRow> rows = new ArrayList<>();
    for (int i = 0; i < configurations.size(); i++) {
      Configuration configuration = configurations.get(i);
      Tally tally = measurement.tally(i);
      boolean ours = configuration.mode() != PlanMode.PLAN_MODE_TAILORKV;
      String name = configuration.name() + ": ";
      rows.add(
          row(
              name + "KL of the logits",
              tally.meanDivergence(),
              ours ? most(tally.meanDivergence(), DIVERGENCE) : ""));
      rows.add(row(name + "same next token", tally.agreement(), ""));
      rows.add(
          row(
              name + "output error, mean",
              tally.errorMean(),
              ours ? most(tally.errorMean(), ERROR_MEAN) : ""));
      rows.add(
          row(
              name + "output error, p99",
              tally.errorP99(),
              ours ? most(tally.errorP99(), ERROR_P99) : ""));
      if (configuration.choosesEverywhere()) {
        rows.addAll(choice(name, tally));
      }
      rows.add(row(name + "device bytes of full KV's", tally.deviceShare(), ""));
      rows.add(row(name + "kB moved a token", tally.bytesFetchedPerStep() / 1e3, ""));
    }
    rows.addAll(besideTailorKv(configurations, measurement));
    return rows;
  }

  private List<BenchRow> choice(String name, Tally tally) {
    List<BenchRow> rows = new ArrayList<>();
    int[] k = {64, 256};
    for (int i = 0; i < k.length; i++) {
      double ours = tally.captured(i);
      double best = tally.capturable(i);
      rows.add(
          new BenchRow(
              name + "mass in " + k[i] + " tokens / best choice",
              ours,
              best,
              ours / best,
              "",
              least(ours, CAPTURED[i]),
              command));
    }
    rows.add(
        row(
            name + "rows with <= 1 % left out",
            tally.rowsWithin(),
            least(tally.rowsWithin(), ROWS_WITHIN)));
    return rows;
  }

  /** Our KL over TailorKV's, where both had the same budget. */
  private List<BenchRow> besideTailorKv(
      List<Configuration> configurations, Measurement measurement) {
    List<BenchRow> rows = new ArrayList<>();
    for (int i = 0; i < configurations.size(); i++) {
      for (int j = 0; j < configurations.size(); j++) {
        if (isSibling(configurations.get(i), configurations.get(j))) {
          double ours = measurement.tally(i).meanDivergence();
          double theirs = measurement.tally(j).meanDivergence();
          double budget = configurations.get(i).budget().orElse(1);
          rows.add(
              new BenchRow(
                  configurations.get(i).name() + ": KL / TailorKV's",
                  ours,
                  theirs,
                  ours / theirs,
                  "nats",
                  budget <= OF_TAILORKV_AT ? most(ours / theirs, OF_TAILORKV) : "",
                  command));
        }
      }
    }
    return rows;
  }

  private static boolean isSibling(Configuration ours, Configuration theirs) {
    return ours.mode() != PlanMode.PLAN_MODE_TAILORKV
        && theirs.mode() == PlanMode.PLAN_MODE_TAILORKV
        && ours.planes().isEmpty()
        && ours.budget().isPresent()
        && ours.budget().equals(theirs.budget());
  }

  /** Questions answered rightly, ours and with full KV. */
  List<BenchRow> ofQuestions(
      String group, List<Configuration> configurations, Measurement measurement) {
    List<BenchRow> rows = new ArrayList<>();
    for (int i = 0; i < configurations.size(); i++) {
      Tally tally = measurement.tally(i);
      boolean ours = configurations.get(i).mode() != PlanMode.PLAN_MODE_TAILORKV;
      boolean met = tally.right() >= tally.rightFull() - 1;
      rows.add(
          new BenchRow(
              "%s: %s right of %d / full KV, %.3f of its bytes"
                  .formatted(
                      configurations.get(i).name(), group, tally.cases(), tally.deviceShare()),
              tally.right(),
              tally.rightFull(),
              (double) tally.right() / Math.max(1, tally.rightFull()),
              "cases",
              ours ? "within one: " + verdict(met) : "",
              command));
    }
    return rows;
  }

  private BenchRow row(String name, double value, String goal) {
    return new BenchRow(name, value, Double.NaN, Double.NaN, "", goal, command);
  }

  private static String most(double value, double bound) {
    return "<= %s: %s".formatted(text(bound), verdict(value <= bound));
  }

  private static String least(double value, double bound) {
    return ">= %s: %s".formatted(text(bound), verdict(value >= bound));
  }

  private static String verdict(boolean met) {
    return met ? "met" : "missed";
  }

  private static String text(double bound) {
    return String.format(Locale.ROOT, "%.3g", bound);
  }
}
