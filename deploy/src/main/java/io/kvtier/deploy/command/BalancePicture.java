package io.kvtier.deploy.command;

import io.kvtier.deploy.simulate.SimulationReport;
import java.util.Arrays;
import java.util.Locale;

/**
 * Draws how evenly a simulated cluster was loaded, as SVG: a bar a node, rising, and their mean.
 */
final class BalancePicture {
  private static final int WIDTH = 960;
  private static final int HEIGHT = 200;
  private static final int MARGIN = 40;

  private BalancePicture() {}

  static String of(SimulationReport report) {
    StringBuilder svg = new StringBuilder();
    append(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\""
            + " font-family=\"sans-serif\" font-size=\"14\">%n",
        WIDTH + 2 * MARGIN,
        2 * (HEIGHT + 2 * MARGIN));
    append(svg, "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>%n");
    bars(svg, MARGIN, "Sessions of each worker when most were open", report.sessionsOfWorkers(), 1);
    int below = HEIGHT + 3 * MARGIN;
    bars(svg, below, "MB of each tier when they held most", report.bytesOfTiers(), 1e6);
    return svg.append("</svg>").append(System.lineSeparator()).toString();
  }

  private static void bars(StringBuilder svg, int top, String title, long[] values, double unit) {
    double most = Math.max(1, Arrays.stream(values).max().orElse(1));
    double mean = Arrays.stream(values).average().orElse(0);
    append(
        svg,
        "<text x=\"%d\" y=\"%d\">%s: mean %.1f, most %.1f</text>%n",
        MARGIN,
        top - 8,
        title,
        mean / unit,
        most / unit);
    double width = (double) WIDTH / Math.max(1, values.length);
    for (int i = 0; i < values.length; i++) {
      double height = HEIGHT * values[i] / most;
      append(
          svg,
          "<rect x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" height=\"%.2f\" fill=\"steelblue\"/>%n",
          MARGIN + i * width,
          top + HEIGHT - height,
          .9 * width,
          height);
    }
    double at = top + HEIGHT - HEIGHT * mean / most;
    append(
        svg,
        "<line x1=\"%d\" y1=\"%.2f\" x2=\"%d\" y2=\"%.2f\" stroke=\"firebrick\"/>%n",
        MARGIN,
        at,
        MARGIN + WIDTH,
        at);
  }

  @com.google.errorprone.annotations.FormatMethod
  private static void append(StringBuilder svg, String form, Object... values) {
    svg.append(String.format(Locale.ROOT, form, values));
  }
}
