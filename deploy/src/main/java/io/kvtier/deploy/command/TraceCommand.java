package io.kvtier.deploy.command;

import com.github.freva.asciitable.AsciiTable;
import com.github.freva.asciitable.Column;
import com.github.freva.asciitable.ColumnData;
import com.github.freva.asciitable.HorizontalAlign;
import io.kvtier.deploy.trace.LayerRow;
import io.kvtier.deploy.trace.Trace;
import io.kvtier.deploy.trace.TracePicture;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Locale;
import java.util.concurrent.Callable;
import java.util.function.Function;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;

/** Shows a trace. */
@Command(
    name = "trace",
    description = {
      "Shows a trace that a worker wrote (--trace of serve, gpu-worker and demo).",
      "Prints a table by layer and draws layers by steps, coloured by the time that each waited for"
          + " fetches."
    },
    mixinStandardHelpOptions = true)
public final class TraceCommand implements Callable<Integer> {
  private static final int CLASSES_SHOWN = 16;

  @Parameters(paramLabel = "FILE", description = "the trace")
  private Path file = Path.of("");

  @Option(names = "--svg", description = "file of the picture (default: FILE with .svg at its end)")
  private @Nullable Path svg;

  @Option(
      names = "--session",
      description = "only the session whose id begins so (default: all of them)")
  private @Nullable String session;

  @Option(names = "--json", description = "file to write the table's rows to as JSON")
  private @Nullable Path json;

  @Override
  public Integer call() throws IOException {
    Path picture = svg == null ? Path.of(file + ".svg") : svg;
    Rows.requireWritable(picture);
    if (json != null) {
      Rows.requireWritable(json);
    }
    Trace whole = Trace.read(file);
    Trace trace = session == null ? whole : whole.ofSession(session);
    List<LayerRow> rows = LayerRow.of(trace);
    System.out.println(table(rows));
    if (trace.dropped() > 0) {
      System.out.printf(
          Locale.ROOT, "%,d steps were not recorded: the worker dropped them%n", trace.dropped());
    }
    Files.writeString(picture, TracePicture.of(trace, rows));
    System.out.println("picture written to " + picture);
    if (json != null) {
      Rows.write(json, rows);
    }
    return 0;
  }

  private static String table(List<LayerRow> rows) {
    return AsciiTable.getTable(
        AsciiTable.NO_BORDERS,
        rows,
        List.of(
            number("layer", row -> "%d", LayerRow::layer),
            new Column().header("heads").dataAlign(HorizontalAlign.LEFT).with(TraceCommand::heads),
            number("steps", row -> "%,d", LayerRow::steps),
            number("candidates", row -> "%,.0f", LayerRow::candidates),
            number("selected", row -> "%,.0f", LayerRow::selected),
            number("hit ratio", TraceCommand::ratioForm, LayerRow::hitRatio),
            number("late", row -> "%,d", LayerRow::late),
            number("near", row -> "%,d", LayerRow::near),
            number("MB", row -> "%,.2f", LayerRow::megabytes),
            number("wasted MB", row -> "%,.2f", LayerRow::wastedMegabytes),
            number("unhidden p50 us", row -> "%,d", LayerRow::unhiddenP50Us),
            number("p99 us", row -> "%,d", LayerRow::unhiddenP99Us),
            number("step p50 us", row -> "%,d", LayerRow::stepP50Us)));
  }

  private static String heads(LayerRow row) {
    return row.classes().length() <= CLASSES_SHOWN
        ? row.classes()
        : row.classes().substring(0, CLASSES_SHOWN) + "...";
  }

  /** No ratio where nothing was needed. */
  private static String ratioForm(LayerRow row) {
    return Double.isNaN(row.hitRatio()) ? "-" : "%.3f";
  }

  private static ColumnData<LayerRow> number(
      String header, Function<LayerRow, String> form, Function<LayerRow, Object> value) {
    return new Column()
        .header(header)
        .headerAlign(HorizontalAlign.RIGHT)
        .dataAlign(HorizontalAlign.RIGHT)
        .with(row -> String.format(Locale.ROOT, form.apply(row), value.apply(row)));
  }
}
