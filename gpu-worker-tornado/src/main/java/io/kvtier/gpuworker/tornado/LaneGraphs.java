package io.kvtier.gpuworker.tornado;

import io.kvtier.gpuworker.core.MassHistogram;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import uk.ac.manchester.tornado.api.GridScheduler;
import uk.ac.manchester.tornado.api.ImmutableTaskGraph;
import uk.ac.manchester.tornado.api.KernelContext;
import uk.ac.manchester.tornado.api.TaskGraph;
import uk.ac.manchester.tornado.api.WorkerGrid1D;
import uk.ac.manchester.tornado.api.enums.DataTransferMode;
import uk.ac.manchester.tornado.api.types.arrays.FloatArray;
import uk.ac.manchester.tornado.api.types.arrays.IntArray;

/**
 * The graphs of a lane's plan, and how many work-groups each of their kernels runs in. The first
 * graph owns the resident buffer; the others take it from whichever graph ran before them, so every
 * graph must name it, whether it reads it or not.
 */
final class LaneGraphs {
  private static final int EACH = DataTransferMode.EVERY_EXECUTION;

  private final Lane lane;
  private final IntArray resident;
  private final KernelContext context = new KernelContext();
  private final FloatArray partials = new FloatArray(StepLayout.PARTIALS);
  private final IntArray histograms =
      new IntArray(StepLayout.KV_HEADS_MAX * StepLayout.CHUNKS_MAX * MassHistogram.BUCKETS);
  private final GridScheduler scheduler = new GridScheduler();

  // Grids by what a work-group stands for.
  private final List<WorkerGrid1D> byPart = new ArrayList<>();
  private final List<WorkerGrid1D> byPartThenBlockChunk = new ArrayList<>();
  private final List<WorkerGrid1D> byHeadChunk = new ArrayList<>();
  private final List<WorkerGrid1D> byPaddedQuery = new ArrayList<>();
  private final List<WorkerGrid1D> byRowSlot = new ArrayList<>();

  LaneGraphs(Lane lane, IntArray resident) {
    this.lane = lane;
    this.resident = resident;
  }

  GridScheduler scheduler() {
    return scheduler;
  }

  /** The graphs, in the order of {@link Lane.Graph}. */
  ImmutableTaskGraph[] all() {
    return new ImmutableTaskGraph[] {
      writeSmall().snapshot(),
      writeLarge().snapshot(),
      choose().snapshot(),
      resident().snapshot(),
      rows(Lane.Graph.ROWS_SMALL, lane.rowsSmall).snapshot(),
      rows(Lane.Graph.ROWS_LARGE, lane.largeStage).snapshot(),
      pages().snapshot()
    };
  }

  static String id(Lane.Graph graph) {
    return graph.name().toLowerCase(Locale.ROOT).replace("_", "");
  }

  private void grid(Lane.Graph graph, String task, List<WorkerGrid1D> kind) {
    kind.add(grid(graph, task, StepLayout.GROUP));
  }

  private WorkerGrid1D grid(Lane.Graph graph, String task, int threads) {
    WorkerGrid1D grid = new WorkerGrid1D(threads);
    grid.setLocalWork(StepLayout.GROUP, 1, 1);
    scheduler.addWorkerGrid(id(graph) + "." + task, grid);
    return grid;
  }

  private TaskGraph consuming(Lane.Graph graph) {
    return new TaskGraph(id(graph)).consumeFromDevice(id(Lane.Graph.WRITE_SMALL), resident);
  }

  private TaskGraph writeSmall() {
    var _ = grid(Lane.Graph.WRITE_SMALL, "write", Lane.SMALL * WriteKernel.BLOCK);
    return new TaskGraph(id(Lane.Graph.WRITE_SMALL))
        .transferToDevice(EACH, lane.smallPlaces, lane.smallStage, lane.writeCount)
        .task(
            "write",
            WriteKernel::write,
            context,
            resident,
            lane.smallPlaces,
            lane.smallStage,
            lane.writeCount)
        .persistOnDevice(resident);
  }

  private TaskGraph writeLarge() {
    var _ = grid(Lane.Graph.WRITE_LARGE, "write", Lane.LARGE * WriteKernel.BLOCK);
    return consuming(Lane.Graph.WRITE_LARGE)
        .transferToDevice(EACH, lane.largePlaces, lane.largeStage, lane.writeCount)
        .task(
            "write",
            WriteKernel::write,
            context,
            resident,
            lane.largePlaces,
            lane.largeStage,
            lane.writeCount);
  }

  /** Ends a graph that leaves partials behind; what they merge to comes back at its end. */
  private TaskGraph merging(
      Lane.Graph graph, IntArray ints, TaskGraph unmerged, FloatArray from, FloatArray result) {
    grid(graph, "merge", byPaddedQuery);
    return unmerged
        .task("merge", MergeKernel::merge, context, ints, from, result)
        .transferToHost(EACH, result);
  }

  /** Attends, to pages that lie there, and merges. */
  private TaskGraph attending(Lane.Graph graph, TaskGraph before, IntArray pages) {
    grid(graph, "attend", byPart);
    before.task("attend", AttendKernel::attend, context, pages, lane.ints, lane.floats, partials);
    return merging(graph, lane.ints, before, partials, lane.merged);
  }

  /** Attends, scans and chooses; a device of few units in two kernels, others in four. */
  private TaskGraph choose() {
    Lane.Graph choose = Lane.Graph.CHOOSE;
    grid(choose, "scan", byPartThenBlockChunk);
    TaskGraph scanned =
        consuming(choose)
            .transferToDevice(EACH, lane.choice, lane.floats)
            .task(
                "scan",
                ScanKernel::attendAndScan,
                context,
                resident,
                lane.choice,
                lane.floats,
                lane.scratch,
                partials,
                histograms);
    TaskGraph chosen = lane.hasFewUnits() ? finished(scanned) : weighedAndTaken(scanned);
    return chosen.transferToHost(DataTransferMode.UNDER_DEMAND, lane.scratch);
  }

  private TaskGraph finished(TaskGraph scanned) {
    grid(Lane.Graph.CHOOSE, "finish", byHeadChunk);
    return scanned
        .task(
            "finish",
            ChoiceKernel::finish,
            context,
            resident,
            lane.choice,
            lane.floats,
            lane.scratch,
            partials,
            histograms,
            lane.result)
        .transferToHost(EACH, lane.result);
  }

  private TaskGraph weighedAndTaken(TaskGraph scanned) {
    grid(Lane.Graph.CHOOSE, "weigh", byHeadChunk);
    grid(Lane.Graph.CHOOSE, "take", byHeadChunk);
    scanned
        .task(
            "weigh",
            ChoiceKernel::weigh,
            context,
            lane.choice,
            lane.floats,
            lane.scratch,
            partials,
            histograms)
        .task(
            "take",
            ChoiceKernel::take,
            context,
            resident,
            lane.choice,
            lane.floats,
            lane.scratch,
            partials,
            histograms,
            lane.result);
    return merging(Lane.Graph.CHOOSE, lane.choice, scanned, partials, lane.result);
  }

  private TaskGraph resident() {
    TaskGraph graph = consuming(Lane.Graph.RESIDENT).transferToDevice(EACH, lane.ints, lane.floats);
    return attending(Lane.Graph.RESIDENT, graph, resident);
  }

  private TaskGraph rows(Lane.Graph graph, IntArray stage) {
    grid(graph, "rows", byRowSlot);
    return consuming(graph)
        .transferToDevice(EACH, stage, lane.floats)
        .task(
            "rows",
            RowsKernel::attend,
            context,
            resident,
            stage,
            stage,
            lane.floats,
            lane.rowPartials)
        .transferToHost(EACH, lane.rowPartials);
  }

  private TaskGraph pages() {
    TaskGraph graph =
        consuming(Lane.Graph.PAGES).transferToDevice(EACH, lane.ints, lane.floats, lane.largeStage);
    return attending(Lane.Graph.PAGES, graph, lane.largeStage);
  }

  /** Sets the grids for a step. */
  void shape(int kvHeads, int blocks, int chunks, int parts, int rowSlots) {
    each(byPart, kvHeads * blocks * Math.max(1, parts));
    each(byPartThenBlockChunk, kvHeads * blocks * (parts + chunks));
    each(byHeadChunk, kvHeads * chunks);
    each(byPaddedQuery, kvHeads * blocks * StepLayout.QUERIES);
    each(byRowSlot, Math.max(1, rowSlots * blocks));
  }

  private static void each(List<WorkerGrid1D> grids, int groups) {
    for (WorkerGrid1D grid : grids) {
      grid.setGlobalWork((long) groups * StepLayout.GROUP, 1, 1);
    }
  }
}
