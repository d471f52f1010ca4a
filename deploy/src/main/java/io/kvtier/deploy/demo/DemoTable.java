package io.kvtier.deploy.demo;

import com.github.freva.asciitable.AsciiTable;
import com.github.freva.asciitable.Column;
import com.github.freva.asciitable.ColumnData;
import com.github.freva.asciitable.HorizontalAlign;
import java.util.List;
import java.util.Locale;
import java.util.function.Function;
import org.jspecify.annotations.Nullable;

/** Prints the demo's rows for people. */
public final class DemoTable {
  private DemoTable() {}

  /** The table, without a trailing line feed. */
  public static String of(List<DemoRow> rows) {
    return AsciiTable.getTable(
        AsciiTable.NO_BORDERS,
        rows,
        List.of(
            column("task", DemoRow::task, HorizontalAlign.LEFT),
            number("tokens", row -> String.valueOf(row.length())),
            number("cases", row -> String.valueOf(row.cases())),
            number("right full", row -> percent(row.accuracyFull())),
            number("kvtier", row -> percent(row.accuracyKvtier())),
            number("same tokens", row -> percent(row.tokenAgreement())),
            number("error mean", row -> decimal(row.errorMean(), 3)),
            number("p99", row -> decimal(row.errorP99(), 2)),
            number("device MB", row -> decimal(row.deviceBytes() / 1e6, 2)),
            number("of full", row -> percent((double) row.deviceBytes() / row.deviceBytesFull())),
            number("tier MB", row -> decimal(row.tierBytes() / 1e6, 2)),
            number("ms/token full", row -> decimal(row.msPerTokenFull(), 2)),
            number("kvtier", row -> decimal(row.msPerTokenKvtier(), 2)),
            number("hit", row -> String.valueOf(row.sectionsHit())),
            number("fetched", row -> String.valueOf(row.sectionsFetched())),
            number("ahead", row -> String.valueOf(row.sectionsPrefetched())),
            number("unhidden ms/token", row -> decimal(row.unhiddenMsPerToken(), 3))));
  }

  /** What the columns mean. */
  public static String legend() {
    return """
    right: answers that match, full KV against kvtier. same tokens: generated tokens equal both ways.
    error: ‖attention output - exact‖ / ‖exact‖ over steps, layers and heads. device: most bytes a session held,
    against the full KV cache at 16 bits. hit, fetched, ahead: rows, a token of a KV head each, found on the device,
    fetched while a step waited, prefetched. unhidden: waiting for fetches.\
    """;
  }

  private static ColumnData<DemoRow> column(
      String header, Function<DemoRow, String> value, HorizontalAlign align) {
    return new Column().header(header).headerAlign(align).dataAlign(align).with(value);
  }

  private static ColumnData<DemoRow> number(String header, Function<DemoRow, String> value) {
    return column(header, value, HorizontalAlign.RIGHT);
  }

  private static String percent(@Nullable Double share) {
    return share == null ? "-" : decimal(100 * share, 1) + " %";
  }

  private static String decimal(double value, int digits) {
    return String.format(Locale.ROOT, "%." + digits + "f", value);
  }
}
