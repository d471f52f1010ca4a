package io.kvtier.gpuworker.trace;

import io.kvtier.KvtierException;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.regex.Pattern;

/**
 * One layer of one step.
 *
 * @param session its id
 * @param position of the step's first token
 * @param tokens queries of the step
 * @param atNs when the worker had the step's message, in nanoseconds since the trace began
 * @param stepNs nanoseconds from then until its output was there and its tokens were appended
 * @param unhiddenNs of them, nanoseconds of waiting for fetches
 * @param candidates tokens, over all KV heads and queries, that sketches offered to the choice
 * @param selected (token, KV head) pairs attended from fetched codes
 * @param hits (page, KV head) pairs needed and found on the device, or on their way
 * @param late of the hits, those still on their way when the step needed them
 * @param fetched (page, KV head) pairs needed and fetched while the step waited
 * @param near (page, KV head) pairs of streamed heads that the tier attended to
 * @param bytes from the tier since the layer's step began, prefetched ones included
 * @param wasted bytes of rows that came ahead since the layer's last step and that this one did not
 *     choose
 * @param classes one letter a KV head: D dense, T sparse with a sketch of two planes, O of one
 *     plane, S streamed
 */
public record TraceStep(
    String session,
    int layer,
    int position,
    int tokens,
    long atNs,
    long stepNs,
    long unhiddenNs,
    long candidates,
    long selected,
    long hits,
    long late,
    long fetched,
    long near,
    long bytes,
    long wasted,
    String classes) {
  /** A trace's first line. */
  public static final String HEADER =
      "session,layer,position,tokens,at_us,step_us,unhidden_us,candidates,selected,hits,late,"
          + "fetched,near,bytes,wasted,classes,dropped";

  /** Most layers, and KV heads, that a line may name; those of a geometry. */
  private static final int LAYERS_MAX = 512;

  private static final int CLASSES_FIELD = 15;
  private static final int TOKENS_MAX = 1 << 20;
  private static final Pattern SESSION = Pattern.compile("[A-Za-z0-9._-]{1,64}");
  private static final Pattern CLASSES = Pattern.compile("[DTOS]{1,128}");

  /**
   * The step as a line, without its end; times are rounded down to microseconds.
   *
   * @param dropped steps that the trace lacks so far
   */
  String toLine(long dropped) {
    return "%s,%d,%d,%d,%d,%d,%d,%d,%d,%d,%d,%d,%d,%d,%d,%s,%d"
        .formatted(
            session,
            layer,
            position,
            tokens,
            TimeUnit.NANOSECONDS.toMicros(atNs),
            TimeUnit.NANOSECONDS.toMicros(stepNs),
            TimeUnit.NANOSECONDS.toMicros(unhiddenNs),
            candidates,
            selected,
            hits,
            late,
            fetched,
            near,
            bytes,
            wasted,
            classes,
            dropped);
  }

  /** A line of a trace: a step, and how many the trace lacks before it. */
  public record Line(TraceStep step, long dropped) {}

  /**
   * Reads a line.
   *
   * @throws KvtierException INVALID with the field, its value and what it must be
   */
  public static Line parse(String line) {
    List<String> names = List.of(HEADER.split(","));
    String[] fields = line.split(",", -1);
    if (fields.length != names.size()) {
      throw KvtierException.invalid(
          "the line has %d fields; it must have %d: %s", fields.length, names.size(), HEADER);
    }
    requireForm(names.get(0), fields[0], SESSION);
    requireForm(names.get(CLASSES_FIELD), fields[CLASSES_FIELD], CLASSES);
    List<Long> numbers = new ArrayList<>();
    for (int i = 1; i < fields.length; i++) {
      if (i != CLASSES_FIELD) {
        numbers.add(number(names.get(i), fields[i], most(i)));
      }
    }
    // A trace of millions of steps names few sessions and classes: each is kept once.
    TraceStep step =
        new TraceStep(
            fields[0].intern(),
            numbers.get(0).intValue(),
            numbers.get(1).intValue(),
            numbers.get(2).intValue(),
            TimeUnit.MICROSECONDS.toNanos(numbers.get(3)),
            TimeUnit.MICROSECONDS.toNanos(numbers.get(4)),
            TimeUnit.MICROSECONDS.toNanos(numbers.get(5)),
            numbers.get(6),
            numbers.get(7),
            numbers.get(8),
            numbers.get(9),
            numbers.get(10),
            numbers.get(11),
            numbers.get(12),
            numbers.get(13),
            fields[CLASSES_FIELD].intern());
    return new Line(step, numbers.get(14));
  }

  private static long most(int field) {
    return switch (field) {
      case 1 -> LAYERS_MAX - 1;
      case 2, 3 -> TOKENS_MAX;
      // A century in microseconds, and far from overflow in sums.
      default -> 1L << 52;
    };
  }

  private static void requireForm(String name, String value, Pattern form) {
    if (!form.matcher(value).matches()) {
      throw KvtierException.invalid("%s is '%s'; it must be %s", name, value, form);
    }
  }

  private static long number(String name, String value, long max) {
    long number;
    try {
      number = Long.parseLong(value);
    } catch (NumberFormatException e) {
      throw KvtierException.invalid("%s is '%s'; it must be a whole number", name, value);
    }
    return KvtierException.requireInRange(name, number, 0, max);
  }
}
