package io.kvtier.deploy.trace;

import io.kvtier.gpuworker.trace.TraceStep;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.TreeSet;
import org.jspecify.annotations.Nullable;

/**
 * A trace as layers by steps: sessions one after the other, in order of their first step, each
 * session's steps in order of position; neighbours of one session share a column where there are
 * more steps than columns.
 */
final class StepGrid {
  /** Where a session's columns begin. */
  record SessionStart(String session, int column) {}

  /** Sums of the steps of one layer that share a column. */
  static final class Cell {
    private int steps;
    private long unhiddenNs;

    /** Nanoseconds of waiting, mean a step. */
    double unhiddenNs() {
      return (double) unhiddenNs / steps;
    }
  }

  /** Columns of one session. */
  private record Columns(int first, int stepsPerColumn, Map<Integer, Integer> order) {
    int of(int position) {
      return first + order.getOrDefault(position, 0) / stepsPerColumn;
    }
  }

  private final Map<Long, Cell> cells = new HashMap<>();
  private final List<SessionStart> sessions = new ArrayList<>();
  private final int layers;
  private final int columns;
  private final int stepsPerColumn;

  /**
   * Lays a trace out.
   *
   * @param columnsMax most columns, as far as each session has one
   */
  StepGrid(Trace trace, int columnsMax) {
    Map<String, Map<Integer, Integer>> orders = orders(trace);
    long steps = orders.values().stream().mapToLong(Map::size).sum();
    this.stepsPerColumn = (int) Math.max(1, (steps + columnsMax - 1) / columnsMax);
    Map<String, Columns> places = new HashMap<>();
    int column = 0;
    for (Map.Entry<String, Map<Integer, Integer>> session : orders.entrySet()) {
      int own = session.getValue().size();
      sessions.add(new SessionStart(session.getKey(), column));
      places.put(session.getKey(), new Columns(column, stepsPerColumn, session.getValue()));
      column += (own + stepsPerColumn - 1) / stepsPerColumn;
    }
    this.columns = column;
    int last = 0;
    for (TraceStep step : trace.steps()) {
      int at = Objects.requireNonNull(places.get(step.session())).of(step.position());
      Cell cell = cells.computeIfAbsent(key(step.layer(), at), key -> new Cell());
      cell.steps++;
      cell.unhiddenNs += step.unhiddenNs();
      last = Math.max(last, step.layer());
    }
    this.layers = last + 1;
  }

  /** Each session's positions, and their places in its order. */
  private static Map<String, Map<Integer, Integer>> orders(Trace trace) {
    Map<String, TreeSet<Integer>> positions = new LinkedHashMap<>();
    for (TraceStep step : trace.steps()) {
      positions.computeIfAbsent(step.session(), id -> new TreeSet<>()).add(step.position());
    }
    Map<String, Map<Integer, Integer>> orders = new LinkedHashMap<>();
    positions.forEach((session, sorted) -> {
      Map<Integer, Integer> order = new HashMap<>();
      sorted.forEach(position -> order.put(position, order.size()));
      orders.put(session, order);
    });
    return orders;
  }

  private static long key(int layer, int column) {
    return (long) layer << Integer.SIZE | column;
  }

  int layers() {
    return layers;
  }

  int columns() {
    return columns;
  }

  int stepsPerColumn() {
    return stepsPerColumn;
  }

  List<SessionStart> sessions() {
    return sessions;
  }

  /** The steps of a layer in a column; null: none was traced. */
  @Nullable Cell cell(int layer, int column) {
    return cells.get(key(layer, column));
  }
}
