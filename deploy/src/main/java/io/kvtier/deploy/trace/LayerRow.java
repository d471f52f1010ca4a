package io.kvtier.deploy.trace;

import io.kvtier.gpuworker.trace.TraceStep;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.TimeUnit;
import java.util.function.ToLongFunction;

/**
 * What the steps of one layer cost.
 *
 * @param classes of the last step, one letter a KV head
 * @param candidates mean a step
 * @param selected mean a step
 * @param needed (page, KV head) pairs that steps needed
 * @param hitRatio of the needed pairs, those that were on the device or on their way; NaN: none was
 *     needed
 * @param late pairs still on their way when they were needed
 * @param near (page, KV head) pairs that the tier attended to
 * @param megabytes from the tier, in all
 * @param wastedMegabytes of rows that came ahead and that their step did not choose
 * @param unhiddenP50Us microseconds of waiting of the median step
 * @param unhiddenP99Us of the step that 99 % do not exceed
 * @param stepP50Us microseconds of the median step
 */
public record LayerRow(
    int layer,
    String classes,
    int steps,
    double candidates,
    double selected,
    long needed,
    double hitRatio,
    long late,
    long near,
    double megabytes,
    double wastedMegabytes,
    long unhiddenP50Us,
    long unhiddenP99Us,
    long stepP50Us) {
  private static final double MEGA = 1e6;

  /** One row a layer. */
  public static List<LayerRow> of(Trace trace) {
    Map<Integer, List<TraceStep>> layers = new TreeMap<>();
    for (TraceStep step : trace.steps()) {
      layers.computeIfAbsent(step.layer(), layer -> new ArrayList<>()).add(step);
    }
    return layers.values().stream().map(LayerRow::row).toList();
  }

  private static LayerRow row(List<TraceStep> steps) {
    long hits = sum(steps, TraceStep::hits);
    long needed = hits + sum(steps, TraceStep::fetched);
    return new LayerRow(
        steps.getFirst().layer(),
        steps.getLast().classes(),
        steps.size(),
        (double) sum(steps, TraceStep::candidates) / steps.size(),
        (double) sum(steps, TraceStep::selected) / steps.size(),
        needed,
        needed == 0 ? Double.NaN : (double) hits / needed,
        sum(steps, TraceStep::late),
        sum(steps, TraceStep::near),
        sum(steps, TraceStep::bytes) / MEGA,
        sum(steps, TraceStep::wasted) / MEGA,
        percentileUs(steps, TraceStep::unhiddenNs, .5),
        percentileUs(steps, TraceStep::unhiddenNs, .99),
        percentileUs(steps, TraceStep::stepNs, .5));
  }

  private static long sum(List<TraceStep> steps, ToLongFunction<TraceStep> value) {
    return steps.stream().mapToLong(value).sum();
  }

  /** The least value that a share of the steps does not exceed. */
  private static long percentileUs(
      List<TraceStep> steps, ToLongFunction<TraceStep> value, double share) {
    long[] sorted = steps.stream().mapToLong(value).sorted().toArray();
    int rank = Math.clamp((long) Math.ceil(share * sorted.length), 1, sorted.length);
    return TimeUnit.NANOSECONDS.toMicros(sorted[rank - 1]);
  }
}
