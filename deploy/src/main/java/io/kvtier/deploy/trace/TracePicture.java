package io.kvtier.deploy.trace;

import com.google.errorprone.annotations.FormatMethod;
import io.kvtier.deploy.trace.StepGrid.Cell;
import io.kvtier.deploy.trace.StepGrid.SessionStart;
import io.kvtier.gpuworker.trace.TraceStep;
import java.util.List;
import java.util.Locale;

/**
 * Draws a trace as SVG: a field of layers by steps, coloured by how long each step waited for
 * fetches, since that is what the service is to hide; beside each layer, how much of what it needed
 * was there. Colours stand for fixed times, so that pictures can be compared.
 */
public final class TracePicture {
  private static final int COLUMNS_MAX = 480;
  private static final int LEFT = 62;
  private static final int TOP = 66;
  private static final int FIELD_WIDTH = 720;
  private static final int FIELD_HEIGHT = 300;
  private static final double CELL_WIDTH_MAX = 24;
  private static final double CELL_HEIGHT_MAX = 30;
  private static final double CELL_HEIGHT_MIN = 3;
  private static final int BARS_LEFT = LEFT + FIELD_WIDTH + 20;
  private static final int BARS_WIDTH = 100;
  private static final int WIDTH = BARS_LEFT + BARS_WIDTH + 52;
  private static final int TICKS = 8;
  private static final int LABEL_HEIGHT = 12;

  /** Session lines closer than this would hide the field. */
  private static final double SESSION_GAP_MIN = 10;

  /** A colour for waits of less than so many nanoseconds. */
  private record Shade(double belowNs, String colour, String label) {}

  private static final List<Shade> SHADES =
      List.of(
          new Shade(1_000, "#eef1f4", "none"),
          new Shade(30_000, "#ffeda0", "<30 µs"),
          new Shade(100_000, "#fed976", "<.1 ms"),
          new Shade(300_000, "#feb24c", "<.3 ms"),
          new Shade(1_000_000, "#fd8d3c", "<1 ms"),
          new Shade(3_000_000, "#f03b20", "<3 ms"),
          new Shade(10_000_000, "#bd0026", "<10 ms"),
          new Shade(Double.POSITIVE_INFINITY, "#4d0013", "more"));

  private static final String STYLE =
      """
      <style>
      text { font: 11px Verdana, 'DejaVu Sans', sans-serif; fill: #222; }
      .title { font-size: 15px; font-weight: bold; }
      .end { text-anchor: end; }
      .middle { text-anchor: middle; }
      .line { stroke: #222; stroke-width: 1; }
      .session { stroke: #3b6ea8; stroke-width: 1; }
      .bar { fill: #3b6ea8; }
      .empty { fill: #e3e7ec; }
      </style>
      """;

  private final Trace trace;
  private final List<LayerRow> rows;
  private final StepGrid grid;
  private final double cellWidth;
  private final double cellHeight;
  private final StringBuilder svg = new StringBuilder();

  private TracePicture(Trace trace, List<LayerRow> rows) {
    this.trace = trace;
    this.rows = rows;
    this.grid = new StepGrid(trace, COLUMNS_MAX);
    this.cellWidth = Math.min(CELL_WIDTH_MAX, (double) FIELD_WIDTH / grid.columns());
    this.cellHeight =
        Math.clamp((double) FIELD_HEIGHT / grid.layers(), CELL_HEIGHT_MIN, CELL_HEIGHT_MAX);
  }

  /** The picture as an SVG document; rows are those of the trace. */
  public static String of(Trace trace, List<LayerRow> rows) {
    return new TracePicture(trace, rows).draw();
  }

  private String draw() {
    int height = (int) Math.ceil(bottom()) + 108;
    add(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d"
            + " %d\">%n",
        WIDTH, height, WIDTH, height);
    svg.append(STYLE);
    add("<rect width=\"%d\" height=\"%d\" fill=\"#fff\"/>%n", WIDTH, height);
    text(LEFT, 24, "title", "Time that decode steps waited for fetches");
    text(LEFT, 43, "", subtitle());
    field();
    sessionLines();
    layerAxis();
    stepAxis();
    bars();
    legend(bottom() + 64);
    return svg.append("</svg>\n").toString();
  }

  private double bottom() {
    return TOP + cellHeight * grid.layers();
  }

  private double right() {
    return LEFT + cellWidth * grid.columns();
  }

  private String subtitle() {
    double step = trace.steps().stream().mapToLong(TraceStep::stepNs).sum();
    double unhidden = trace.steps().stream().mapToLong(TraceStep::unhiddenNs).sum();
    return String.format(
        Locale.ROOT,
        "%,d steps of a layer, %s; %.1f %% of their time was waiting%s",
        trace.steps().size(),
        count(grid.sessions().size(), "session"),
        step == 0 ? 0 : 100 * unhidden / step,
        trace.dropped() == 0
            ? ""
            : String.format(Locale.ROOT, "; %,d steps were not recorded", trace.dropped()));
  }

  private static String count(int count, String what) {
    return String.format(Locale.ROOT, "%,d %s%s", count, what, count == 1 ? "" : "s");
  }

  /** Neighbours of one colour are one rectangle. */
  private void field() {
    for (int layer = 0; layer < grid.layers(); layer++) {
      int from = 0;
      String colour = colour(layer, 0);
      for (int column = 1; column <= grid.columns(); column++) {
        String next = column < grid.columns() ? colour(layer, column) : "";
        if (!next.equals(colour)) {
          run(layer, from, column, colour);
          from = column;
          colour = next;
        }
      }
    }
  }

  private String colour(int layer, int column) {
    Cell cell = grid.cell(layer, column);
    if (cell == null) {
      return "#fff";
    }
    for (Shade shade : SHADES) {
      if (cell.unhiddenNs() < shade.belowNs()) {
        return shade.colour();
      }
    }
    throw new IllegalStateException("the last shade has no bound");
  }

  private void run(int layer, int from, int to, String colour) {
    // A gap between layers, and between steps where there is room for it, lets single cells be
    // seen.
    double gap = cellHeight > 8 ? 1 : 0;
    double columnGap = cellWidth > 6 ? 1 : 0;
    if (columnGap == 0) {
      rect(
          LEFT + from * cellWidth,
          TOP + layer * cellHeight,
          (to - from) * cellWidth,
          cellHeight - gap,
          colour);
      return;
    }
    for (int column = from; column < to; column++) {
      rect(
          LEFT + column * cellWidth,
          TOP + layer * cellHeight,
          cellWidth - columnGap,
          cellHeight - gap,
          colour);
    }
  }

  private void rect(double x, double y, double width, double height, String colour) {
    add(
        "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"%s\"/>%n",
        x, y, width, height, colour);
  }

  private void sessionLines() {
    int last = 0;
    for (SessionStart session : grid.sessions()) {
      if ((session.column() - last) * cellWidth >= SESSION_GAP_MIN) {
        last = session.column();
        line(LEFT + last * cellWidth, TOP - 6, LEFT + last * cellWidth, bottom(), "session");
      }
    }
  }

  private void layerAxis() {
    int every = (int) Math.ceil(LABEL_HEIGHT / cellHeight);
    for (int layer = 0; layer < grid.layers(); layer += every) {
      text(LEFT - 8, TOP + (layer + .5) * cellHeight + 4, "end", String.valueOf(layer));
    }
    double middle = (TOP + bottom()) / 2;
    add(
        "<text class=\"middle\" transform=\"translate(16 %.1f) rotate(-90)\">layer</text>%n",
        middle);
  }

  private void stepAxis() {
    line(LEFT, bottom() + 2, right(), bottom() + 2, "line");
    int ticks = Math.min(TICKS, grid.columns());
    int every = Math.max(1, grid.columns() / ticks);
    for (int column = 0; column < grid.columns(); column += every) {
      double x = LEFT + column * cellWidth;
      line(x, bottom() + 2, x, bottom() + 7, "line");
      text(x, bottom() + 19, "middle", label((long) column * grid.stepsPerColumn()));
    }
    String what = "step";
    if (grid.sessions().size() > 1) {
      what += " (sessions one after the other, a line before each)";
    }
    if (grid.stepsPerColumn() > 1) {
      what += "; each column is the mean of " + grid.stepsPerColumn();
    }
    text(LEFT, bottom() + 38, "", what);
  }

  private static String label(long steps) {
    return String.format(Locale.ROOT, "%,d", steps);
  }

  private void bars() {
    text(BARS_LEFT, TOP - 10, "", "found on the device");
    int every = (int) Math.ceil(LABEL_HEIGHT / cellHeight);
    for (LayerRow row : rows) {
      double y = TOP + row.layer() * cellHeight;
      double height = Math.max(1, cellHeight - 1);
      boolean labelled = row.layer() % every == 0;
      add(
          "<rect class=\"empty\" x=\"%d\" y=\"%.1f\" width=\"%d\" height=\"%.1f\"/>%n",
          BARS_LEFT, y, BARS_WIDTH, height);
      if (Double.isNaN(row.hitRatio())) {
        if (labelled) {
          text(BARS_LEFT + 4, y + cellHeight / 2 + 4, "", "none needed");
        }
        continue;
      }
      add(
          "<rect class=\"bar\" x=\"%d\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"/>%n",
          BARS_LEFT, y, BARS_WIDTH * row.hitRatio(), height);
      if (labelled) {
        text(
            BARS_LEFT + BARS_WIDTH + 6,
            y + cellHeight / 2 + 4,
            "",
            String.format(Locale.ROOT, "%.0f %%", 100 * row.hitRatio()));
      }
    }
  }

  private void legend(double y) {
    text(LEFT, y + 11, "", "waited");
    double x = LEFT + 50;
    for (Shade shade : SHADES) {
      rect(x, y, 18, 14, shade.colour());
      text(x + 23, y + 11, "", shade.label());
      x += 82;
    }
    rect(BARS_LEFT, y, 18, 14, "#3b6ea8");
    text(BARS_LEFT + 23, y + 11, "", "hit ratio");
  }

  private void line(double x1, double y1, double x2, double y2, String type) {
    add(
        "<line class=\"%s\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>%n",
        type, x1, y1, x2, y2);
  }

  /** All text is ours: nothing in it has a meaning in XML but the sign of less. */
  private void text(double x, double y, String type, String text) {
    add(
        "<text class=\"%s\" x=\"%.1f\" y=\"%.1f\">%s</text>%n",
        type, x, y, text.replace("<", "&lt;"));
  }

  @FormatMethod
  private void add(String format, Object... values) {
    svg.append(String.format(Locale.ROOT, format, values));
  }
}
