package io.kvtier.deploy.trace;

import io.kvtier.KvtierException;
import io.kvtier.gpuworker.trace.TraceStep;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Set;

/**
 * What a trace file says.
 *
 * @param steps of layers, in the order in which they were served; at least one
 * @param dropped steps that the trace lacks, as far as its last line knows
 */
public record Trace(List<TraceStep> steps, long dropped) {
  private static final String END_OF_LINE = "\n";

  /**
   * Reads a file that a worker wrote.
   *
   * @throws KvtierException INVALID if it is no trace, has no step, or is cut off; it names the
   *     line
   */
  public static Trace read(Path file) throws IOException {
    if (!Files.isRegularFile(file)) {
      throw KvtierException.invalid(
          "%s is no file; give one that a worker wrote with --trace", file);
    }
    long bytes = Files.size(file);
    if (bytes == 0) {
      throw KvtierException.invalid(
          "%s is empty; a trace begins with the line %s", file, TraceStep.HEADER);
    }
    List<TraceStep> steps = new ArrayList<>();
    long dropped = 0;
    // Whatever the bytes are, they are characters here: a file that is no trace is told as such.
    try (BufferedReader lines = Files.newBufferedReader(file, StandardCharsets.ISO_8859_1)) {
      if (!TraceStep.HEADER.equals(lines.readLine())) {
        throw KvtierException.invalid(
            "%s is no trace of this version; its first line must be %s", file, TraceStep.HEADER);
      }
      boolean whole = endsWhole(file, bytes);
      String line = lines.readLine();
      for (int number = 2; line != null; number++) {
        String next = lines.readLine();
        if (next == null && !whole) {
          throw KvtierException.invalid(
              "line %d of %s, its last, is cut off: the worker was stopped while it wrote; remove"
                  + " that line to use the rest",
              number, file);
        }
        TraceStep.Line read = parse(line, number, file);
        steps.add(read.step());
        dropped = Math.max(dropped, read.dropped());
        line = next;
      }
    }
    if (steps.isEmpty()) {
      throw KvtierException.invalid(
          "%s has no step; a worker adds one for each layer that it decodes", file);
    }
    return new Trace(List.copyOf(steps), dropped);
  }

  private static TraceStep.Line parse(String line, int number, Path file) {
    try {
      return TraceStep.parse(line);
    } catch (KvtierException e) {
      throw KvtierException.invalid(
          "line %d of %s: %s", number, file, String.valueOf(e.getMessage()));
    }
  }

  private static boolean endsWhole(Path file, long bytes) throws IOException {
    try (RandomAccessFile raw = new RandomAccessFile(file.toFile(), "r")) {
      raw.seek(bytes - 1);
      return raw.read() == END_OF_LINE.charAt(0);
    }
  }

  /** The sessions, in order of their first step. */
  public Set<String> sessions() {
    Set<String> sessions = new LinkedHashSet<>();
    steps.forEach(step -> sessions.add(step.session()));
    return sessions;
  }

  /**
   * The steps of one session alone.
   *
   * @param prefix of its id
   * @throws KvtierException INVALID unless exactly one session's id begins so
   */
  public Trace ofSession(String prefix) {
    List<String> meant = sessions().stream().filter(id -> id.startsWith(prefix)).toList();
    if (meant.size() != 1) {
      throw KvtierException.invalid(
          "%d of the %d sessions in the trace have an id that begins with '%s'; it must be one",
          meant.size(), sessions().size(), prefix);
    }
    List<TraceStep> own =
        steps.stream().filter(step -> step.session().equals(meant.getFirst())).toList();
    return new Trace(own, dropped);
  }
}
