package io.kvtier.gpuworker.tornado;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.codec.RotLevels;
import io.kvtier.gpuworker.core.MassHistogram;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.function.Consumer;
import java.util.function.Supplier;
import org.agrona.UnsafeApi;
import uk.ac.manchester.tornado.api.DataRange;
import uk.ac.manchester.tornado.api.GridScheduler;
import uk.ac.manchester.tornado.api.ImmutableTaskGraph;
import uk.ac.manchester.tornado.api.KernelContext;
import uk.ac.manchester.tornado.api.TaskGraph;
import uk.ac.manchester.tornado.api.TornadoExecutionPlan;
import uk.ac.manchester.tornado.api.TornadoExecutionResult;
import uk.ac.manchester.tornado.api.WorkerGrid1D;
import uk.ac.manchester.tornado.api.common.TornadoDevice;
import uk.ac.manchester.tornado.api.enums.DataTransferMode;
import uk.ac.manchester.tornado.api.exceptions.TornadoExecutionPlanException;
import uk.ac.manchester.tornado.api.types.arrays.FloatArray;
import uk.ac.manchester.tornado.api.types.arrays.IntArray;
import uk.ac.manchester.tornado.api.types.arrays.TornadoNativeArray;

/**
 * One execution plan with a resident buffer of its own, and the thread that runs it: TornadoVM
 * keeps a command queue a thread, and plans that run at once must not share buffers. Layers are
 * dealt out to lanes, so that one lane takes uploads while another computes.
 *
 * <p>The arrays below are the host's side of what goes to the device and comes back; they are
 * touched on the lane's thread alone.
 */
final class Lane implements AutoCloseable {
  /** Blocks of a small write, and ints of a small stage of rows: 64 KiB. */
  static final int SMALL = 1 << 10;

  /** Of a large one: 2 MiB. */
  static final int LARGE = 1 << 15;

  /** Floats of all partials of a step. */
  static final int PARTIALS = 1 << 21;

  private static final int SCORES_MIN = 1 << 20;
  private static final int COPIED_INTS = 1 << 25;
  private static final int COPY_ROUNDS = 12;
  private static final int ONCE = DataTransferMode.FIRST_EXECUTION;
  private static final int EACH = DataTransferMode.EVERY_EXECUTION;

  /** The graphs of the plan, in its order. */
  enum Graph {
    WRITE_SMALL,
    WRITE_LARGE,
    WINDOW,
    CHOOSE,
    DENSE,
    ROWS_SMALL,
    ROWS_LARGE,
    PAGES
  }

  final Arena arena;
  final IntArray ints = new IntArray(StepLayout.INTS);
  final FloatArray floats = new FloatArray(StepLayout.FLOATS);
  final IntArray tables = new IntArray(StepLayout.TABLE_INTS);
  final FloatArray merged =
      new FloatArray(StepLayout.QUERY_ELEMENTS * 2 + 2 * StepLayout.PADDED_QUERIES_MAX);
  final IntArray smallPlaces = new IntArray(SMALL);
  final IntArray smallStage = new IntArray(SMALL * WriteKernel.BLOCK);
  final IntArray largePlaces = new IntArray(LARGE);
  final IntArray largeStage = new IntArray(LARGE * WriteKernel.BLOCK);

  /** One int: how many blocks a write copies. */
  final IntArray writeCount = new IntArray(1);

  /** Scores that a step can hold: q heads times paged tokens. */
  final int scoresMax;

  final IntArray chosen;
  private final String name;
  private final TornadoDevice device;
  private long address;
  private final ExecutorService thread;
  private final TornadoExecutionPlan plan;
  private final GridScheduler scheduler = new GridScheduler();

  // Grids by what a work-group or thread stands for.
  private final List<WorkerGrid1D> byBlock = new ArrayList<>();
  private final List<WorkerGrid1D> byBlockChunk = new ArrayList<>();
  private final List<WorkerGrid1D> byHeadChunk = new ArrayList<>();
  private final List<WorkerGrid1D> byQuery = new ArrayList<>();
  private final List<WorkerGrid1D> byPaddedQuery = new ArrayList<>();
  private final List<WorkerGrid1D> byHead = new ArrayList<>();
  private final List<WorkerGrid1D> byRowSlot = new ArrayList<>();

  /**
   * A lane; compiles its kernels, which takes seconds.
   *
   * @param bytes of the resident buffer
   * @param progress hears the name of each graph before it is compiled
   */
  Lane(String name, TornadoDevice device, long bytes, Consumer<String> progress) {
    int blocks = Arena.blocksOf(bytes);
    this.name = name;
    this.device = device;
    this.arena = new Arena(name, blocks);
    this.scoresMax = Math.clamp(bytes / 32 / Float.BYTES, SCORES_MIN, 1 << 29);
    this.chosen = new IntArray(ChoiceKernel.CHOSEN + 2 * chosenMax());
    this.thread = Executors.newSingleThreadExecutor(Thread.ofPlatform().name(name).factory());
    this.plan = new TornadoExecutionPlan(graphs(blocks));
    plan.withDevice(device);
    plan.withGridScheduler(scheduler);
    try {
      on(() -> {
        warmUp(progress);
        return this;
      });
    } catch (RuntimeException e) {
      thread.shutdown();
      throw e;
    }
  }

  /** Tokens that a step can choose, over all heads, the head with most counting for each. */
  int chosenMax() {
    return scoresMax / 4;
  }

  private ImmutableTaskGraph[] graphs(int blocks) {
    KernelContext context = new KernelContext();
    IntArray resident = resident(blocks);
    FloatArray constants = constants();
    FloatArray partials = new FloatArray(PARTIALS);
    FloatArray scores = new FloatArray(scoresMax);
    FloatArray masses = new FloatArray(scoresMax);
    FloatArray stats = new FloatArray(2 * StepLayout.PADDED_QUERIES_MAX * StepLayout.CHUNKS_MAX);
    FloatArray lses = new FloatArray(2 * StepLayout.PADDED_QUERIES_MAX);
    IntArray histograms = new IntArray(StepLayout.KV_HEADS_MAX * MassHistogram.BUCKETS);
    IntArray limits = new IntArray(2 * StepLayout.KV_HEADS_MAX);
    IntArray counts = new IntArray(2 * StepLayout.KV_HEADS_MAX * StepLayout.CHUNKS_MAX);
    String owner = id(Graph.WRITE_SMALL);

    TaskGraph writeSmall =
        new TaskGraph(owner)
            .transferToDevice(EACH, smallPlaces, smallStage, writeCount)
            .task(
                "write", WriteKernel::write, context, resident, smallPlaces, smallStage, writeCount)
            .persistOnDevice(resident);
    grid(Graph.WRITE_SMALL, "write", new ArrayList<>(), SMALL * WriteKernel.BLOCK);
    TaskGraph writeLarge =
        new TaskGraph(id(Graph.WRITE_LARGE))
            .consumeFromDevice(owner, resident)
            .transferToDevice(EACH, largePlaces, largeStage, writeCount)
            .task(
                "write",
                WriteKernel::write,
                context,
                resident,
                largePlaces,
                largeStage,
                writeCount);
    grid(Graph.WRITE_LARGE, "write", new ArrayList<>(), LARGE * WriteKernel.BLOCK);

    TaskGraph window =
        new TaskGraph(id(Graph.WINDOW))
            .consumeFromDevice(owner, resident)
            .transferToDevice(ONCE, constants)
            .transferToDevice(EACH, ints, floats)
            .task(
                "window",
                WindowKernel::attend,
                context,
                resident,
                ints,
                floats,
                constants,
                partials)
            .task("merge", MergeKernel::merge, context, ints, partials, merged)
            .transferToHost(EACH, merged);
    grid(Graph.WINDOW, "window", byBlock, 1);
    grid(Graph.WINDOW, "merge", byPaddedQuery, 1);

    TaskGraph choose =
        new TaskGraph(id(Graph.CHOOSE))
            .consumeFromDevice(owner, resident)
            .transferToDevice(ONCE, constants)
            .transferToDevice(EACH, ints, floats, tables)
            .task(
                "window",
                WindowKernel::attend,
                context,
                resident,
                ints,
                floats,
                constants,
                partials)
            .task("scan", ScanKernel::scan, context, resident, ints, floats, tables, scores, stats)
            .task(
                "share",
                ChoiceKernel::share,
                context,
                ints,
                floats,
                partials,
                stats,
                lses,
                histograms)
            .task(
                "weigh",
                ChoiceKernel::weigh,
                context,
                ints,
                constants,
                scores,
                lses,
                masses,
                histograms)
            .task(
                "limit",
                ChoiceKernel::limit,
                context,
                ints,
                floats,
                constants,
                lses,
                histograms,
                limits,
                chosen)
            .task("count", ChoiceKernel::count, context, ints, constants, masses, limits, counts)
            .task(
                "collect",
                ChoiceKernel::collect,
                context,
                ints,
                constants,
                masses,
                limits,
                counts,
                chosen)
            .task(
                "rest", ChoiceKernel::rest, context, resident, ints, scores, lses, masses, partials)
            .task("merge", MergeKernel::merge, context, ints, partials, merged)
            .transferToHost(EACH, merged)
            .transferToHost(DataTransferMode.UNDER_DEMAND, chosen);
    grid(Graph.CHOOSE, "window", byBlock, 1);
    grid(Graph.CHOOSE, "scan", byBlockChunk, 1);
    grid(Graph.CHOOSE, "share", byQuery, 1);
    grid(Graph.CHOOSE, "weigh", byHeadChunk, 1);
    grid(Graph.CHOOSE, "limit", byHead, 1);
    grid(Graph.CHOOSE, "count", byHeadChunk, 1);
    grid(Graph.CHOOSE, "collect", byHeadChunk, 1);
    grid(Graph.CHOOSE, "rest", byBlockChunk, 1);
    grid(Graph.CHOOSE, "merge", byPaddedQuery, 1);

    TaskGraph dense =
        new TaskGraph(id(Graph.DENSE))
            .consumeFromDevice(owner, resident)
            .transferToDevice(ONCE, constants)
            .transferToDevice(EACH, ints, floats)
            .task(
                "dense", DenseKernel::attend, context, resident, ints, floats, constants, partials)
            .task("merge", MergeKernel::merge, context, ints, partials, merged)
            .transferToHost(EACH, merged);
    grid(Graph.DENSE, "dense", byBlockChunk, 1);
    grid(Graph.DENSE, "merge", byPaddedQuery, 1);
    TaskGraph pages =
        // It reads nothing resident; but a graph finds the buffer through the graph run before it.
        new TaskGraph(id(Graph.PAGES))
            .consumeFromDevice(owner, resident)
            .transferToDevice(ONCE, constants)
            .transferToDevice(EACH, ints, floats, largeStage)
            .task(
                "pages",
                DenseKernel::attend,
                context,
                largeStage,
                ints,
                floats,
                constants,
                partials)
            .task("merge", MergeKernel::merge, context, ints, partials, merged)
            .transferToHost(EACH, merged);
    grid(Graph.PAGES, "pages", byBlockChunk, 1);
    grid(Graph.PAGES, "merge", byPaddedQuery, 1);
    return new ImmutableTaskGraph[] {
      writeSmall.snapshot(),
      writeLarge.snapshot(),
      window.snapshot(),
      choose.snapshot(),
      dense.snapshot(),
      rows(Graph.ROWS_SMALL, smallStage, context, resident, constants, partials).snapshot(),
      rows(Graph.ROWS_LARGE, largeStage, context, resident, constants, partials).snapshot(),
      pages.snapshot()
    };
  }

  /** Address space alone: nothing is written there on the host, so the system gives no memory. */
  @SuppressWarnings("restricted") // the flags allow native access
  private IntArray resident(int blocks) {
    long length = TornadoNativeArray.ARRAY_HEADER + 4L * blocks * WriteKernel.BLOCK;
    address = UnsafeApi.allocateMemory(length);
    return IntArray.fromSegmentShallow(MemorySegment.ofAddress(address).reinterpret(length));
  }

  private TaskGraph rows(
      Graph graph,
      IntArray stage,
      KernelContext context,
      IntArray resident,
      FloatArray constants,
      FloatArray partials) {
    grid(graph, "rows", byRowSlot, 1);
    grid(graph, "merge", byPaddedQuery, 1);
    return new TaskGraph(id(graph))
        .consumeFromDevice(id(Graph.WRITE_SMALL), resident)
        .transferToDevice(ONCE, constants)
        .transferToDevice(EACH, ints, floats, stage)
        .task(
            "rows", RowsKernel::attend, context, resident, stage, ints, floats, constants, partials)
        .task("merge", MergeKernel::merge, context, ints, partials, merged)
        .transferToHost(EACH, merged);
  }

  private static FloatArray constants() {
    FloatArray constants = new FloatArray(Coded.CONSTANTS);
    for (int e = 0; e < 256; e++) {
      constants.set(Coded.POWERS + e, (float) Math.scalb(1.0, e - 150));
    }
    for (int code = 0; code < 16; code++) {
      constants.set(Coded.LEVELS + code, RotLevels.of(4).level(code));
    }
    return constants;
  }

  private static String id(Graph graph) {
    return graph.name().toLowerCase(java.util.Locale.ROOT).replace("_", "");
  }

  private void grid(Graph graph, String task, List<WorkerGrid1D> kind, int threads) {
    WorkerGrid1D grid = new WorkerGrid1D(Math.max(threads, StepLayout.GROUP));
    grid.setLocalWork(StepLayout.GROUP, 1, 1);
    scheduler.addWorkerGrid(id(graph) + "." + task, grid);
    kind.add(grid);
  }

  private void warmUp(Consumer<String> progress) {
    ints.init(0);
    ints.set(StepLayout.KV_HEADS, 1);
    ints.set(StepLayout.Q_GROUP, 1);
    ints.set(StepLayout.HEAD_DIM, 16);
    ints.set(StepLayout.BLOCKS, 1);
    ints.set(StepLayout.CHUNKS, 1);
    ints.set(StepLayout.ELEMENT_BYTES, Float.BYTES);
    ints.set(StepLayout.QUERY_THREADS, StepLayout.GROUP);
    floats.init(0f);
    tables.init(0);
    smallStage.init(0);
    largeStage.init(0);
    writeCount.set(0, 0);
    for (Graph graph : Graph.values()) {
      progress.accept(id(graph));
      execute(graph);
    }
  }

  /** Sets the grids for a step, and says so in its figures. */
  void shape(int kvHeads, int group, int blocks, int chunks, int rowSlots, int[] figures) {
    each(byBlock, kvHeads * blocks);
    each(byBlockChunk, kvHeads * blocks * chunks);
    each(byHeadChunk, kvHeads * chunks);
    each(byPaddedQuery, kvHeads * blocks * StepLayout.QUERIES);
    int queryGroups = (kvHeads * group + StepLayout.GROUP - 1) / StepLayout.GROUP;
    each(byQuery, queryGroups);
    each(byHead, (kvHeads + StepLayout.GROUP - 1) / StepLayout.GROUP);
    each(byRowSlot, Math.max(1, rowSlots * blocks));
    figures[StepLayout.QUERY_THREADS] = queryGroups * StepLayout.GROUP;
  }

  private static void each(List<WorkerGrid1D> grids, int groups) {
    for (WorkerGrid1D grid : grids) {
      grid.setGlobalWork((long) groups * StepLayout.GROUP, 1, 1);
    }
  }

  /** Runs a graph; on the lane's thread. */
  TornadoExecutionResult execute(Graph graph) {
    return plan.withGraph(graph.ordinal()).execute();
  }

  /** Brings the first {@code count} of the chosen tokens' ints to the host. */
  void downloadChosen(TornadoExecutionResult result, int from, int count) {
    result.transferToHost(new DataRange(chosen).withOffset(from).withSize(count));
  }

  /** Runs work on the lane's thread and waits for it. */
  <T> T on(Supplier<T> work) {
    try {
      return CompletableFuture.supplyAsync(work, thread).get();
    } catch (ExecutionException e) {
      if (e.getCause() instanceof KvtierException refused) {
        throw refused;
      }
      throw new IllegalStateException("%s failed: %s".formatted(name, e.getCause()), e.getCause());
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new KvtierException(Code.UNAVAILABLE, "interrupted while waiting for the device");
    }
  }

  /** Bytes a second that a kernel copies, what is read and what is written counted each. */
  double copyBandwidth() {
    return on(() -> {
      IntArray from = new IntArray(COPIED_INTS);
      IntArray to = new IntArray(COPIED_INTS);
      from.init(1);
      TaskGraph graph =
          new TaskGraph("bandwidth")
              .transferToDevice(ONCE, from)
              .task("copy", WriteKernel::copy, new KernelContext(), from, to)
              .transferToHost(DataTransferMode.UNDER_DEMAND, to);
      WorkerGrid1D copies = new WorkerGrid1D(COPIED_INTS);
      copies.setLocalWork(StepLayout.GROUP, 1, 1);
      try (TornadoExecutionPlan copying = new TornadoExecutionPlan(graph.snapshot())) {
        copying.withDevice(device).withGridScheduler(new GridScheduler("bandwidth.copy", copies));
        double best = 0;
        for (int round = 0; round < COPY_ROUNDS; round++) {
          long startNs = System.nanoTime();
          copying.execute();
          best = Math.max(best, 8e9 * COPIED_INTS / (System.nanoTime() - startNs));
        }
        return best;
      } catch (TornadoExecutionPlanException e) {
        throw new IllegalStateException("the plan does not close", e);
      }
    });
  }

  @Override
  public void close() {
    try {
      on(() -> {
        try {
          plan.close();
        } catch (TornadoExecutionPlanException e) {
          throw new IllegalStateException("the plan does not close", e);
        }
        return this;
      });
    } finally {
      thread.shutdown();
      UnsafeApi.freeMemory(address);
    }
  }
}
