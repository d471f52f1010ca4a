package io.kvtier.gpuworker.tornado;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import java.lang.foreign.MemorySegment;
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
import uk.ac.manchester.tornado.api.KernelContext;
import uk.ac.manchester.tornado.api.TaskGraph;
import uk.ac.manchester.tornado.api.TornadoExecutionPlan;
import uk.ac.manchester.tornado.api.TornadoExecutionResult;
import uk.ac.manchester.tornado.api.WorkerGrid1D;
import uk.ac.manchester.tornado.api.common.TornadoDevice;
import uk.ac.manchester.tornado.api.enums.DataTransferMode;
import uk.ac.manchester.tornado.api.enums.ProfilerMode;
import uk.ac.manchester.tornado.api.exceptions.TornadoExecutionPlanException;
import uk.ac.manchester.tornado.api.exceptions.TornadoOutOfMemoryException;
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
  /** Blocks of a small write: 64 KiB. */
  static final int SMALL = 1 << 10;

  /** Of a large one: 2 MiB. */
  static final int LARGE = 1 << 15;

  /** Ints of a small stage of rows: 96 KiB. */
  static final int ROWS_SMALL_INTS = 3 << 13;

  /** No more than most models have KV heads. */
  private static final int FEW_UNITS = 4;

  private static final int SCORES_MIN = 1 << 20;
  private static final int COPIED_INTS = 1 << 23;
  private static final int COPY_ROUNDS = 12;
  private static final int ONCE = DataTransferMode.FIRST_EXECUTION;

  /** The graphs of the plan, in its order. */
  enum Graph {
    WRITE_SMALL(0),
    WRITE_LARGE(1),
    CHOOSE(2),
    RESIDENT(3),
    ROWS_SMALL(4),
    ROWS_LARGE(5),
    PAGES(6);

    private final int index;

    Graph(int index) {
      this.index = index;
    }
  }

  final Arena arena;
  final IntArray ints = new IntArray(StepLayout.INTS);
  final FloatArray floats = new FloatArray(StepLayout.FLOATS);

  /** A choice's ints, and then its tables: an array more is a transfer more. */
  final IntArray choice = new IntArray(StepLayout.INTS + StepLayout.TABLE_INTS);

  final IntArray smallPlaces = new IntArray(SMALL);
  final IntArray smallStage = new IntArray(SMALL * WriteKernel.BLOCK);
  final IntArray rowsSmall = new IntArray(ROWS_SMALL_INTS);
  final IntArray largePlaces = new IntArray(LARGE);
  final IntArray largeStage = new IntArray(LARGE * WriteKernel.BLOCK);

  /** One int: how many blocks a write copies. */
  final IntArray writeCount = new IntArray(1);

  /** Scores that a step can hold: q heads times paged tokens. */
  final int scoresMax;

  /** What comes back of a choice; as {@link StepLayout} says. */
  final FloatArray result;

  /**
   * A choice's, of which chosen tokens beyond {@link StepLayout#CHOSEN_NEAR} come back when asked
   * for.
   */
  final FloatArray scratch;

  /** What comes back of graphs without a choice, each of which has a copy on the device. */
  final FloatArray merged;

  /** Partials of rows, which come back as they are. */
  final FloatArray rowPartials;

  private final String name;
  private final TornadoDevice device;
  private final int computeUnits;
  private long address;
  private final ExecutorService thread;
  private final TornadoExecutionPlan plan;
  private final LaneGraphs graphs;

  /** Where rows lie that are used once. */
  private final Place passage;

  private long batches;
  private boolean profiling;

  /** Nanoseconds of kernels since the profile began. */
  private long kernelNs;

  /**
   * A lane; compiles its kernels, which takes seconds.
   *
   * @param bytes of the resident buffer
   * @param computeUnits how many work-groups the device runs at once, or more
   * @param progress hears the name of each graph before it is compiled
   */
  Lane(String name, TornadoDevice device, long bytes, int computeUnits, Consumer<String> progress) {
    int blocks = Arena.blocksOf(bytes);
    this.name = name;
    this.device = device;
    this.computeUnits = computeUnits;
    this.arena = new Arena(name, blocks);
    this.passage = Place.take(this, LARGE * WriteKernel.BLOCK * Integer.BYTES);
    this.scoresMax = Math.clamp(bytes / 32 / Float.BYTES, SCORES_MIN, 1 << 29);
    int mergedMax = StepLayout.partials(1);
    this.merged = new FloatArray(StepLayout.MERGED_AT + mergedMax);
    int rowSlots = hasFewUnits() ? 1 : StepLayout.ROW_SLOTS;
    this.rowPartials = new FloatArray(StepLayout.partials(rowSlots));
    this.result = new FloatArray(StepLayout.MERGED_AT + mergedMax + StepLayout.CHOSEN_NEAR);
    this.scratch = new FloatArray(moreChosenAt() + 2 * chosenMax() - StepLayout.CHOSEN_NEAR);
    this.thread = Executors.newSingleThreadExecutor(Thread.ofPlatform().name(name).factory());
    this.graphs = new LaneGraphs(this, resident(blocks));
    this.plan = new TornadoExecutionPlan(graphs.all());
    plan.withDevice(device);
    plan.withGridScheduler(graphs.scheduler());
    try {
      on(() -> {
        warmUp(progress);
        return this;
      });
    } catch (RuntimeException e) {
      thread.shutdown();
      UnsafeApi.freeMemory(address);
      throw e;
    }
  }

  /** Where rows lie that are used once: as many as a large stage has. */
  Place passage() {
    return passage;
  }

  /**
   * Whether a work-group for each head keeps the device busy: then a choice need not be cut into
   * chunks that wait for each other.
   */
  boolean hasFewUnits() {
    return computeUnits <= FEW_UNITS;
  }

  /** A number that no other batch of rows of the lane has. */
  synchronized long nextBatch() {
    return ++batches;
  }

  /** Tokens that a step can choose, over all heads, the head with most counting for each. */
  int chosenMax() {
    return scoresMax / 4;
  }

  /** Where the scratch has weights, after masses. */
  int weightsAt() {
    return StepLayout.MASSES_AT + scoresMax;
  }

  /** Where the scratch has chosen tokens that do not come back with the others. */
  int moreChosenAt() {
    return weightsAt() + scoresMax;
  }

  /** Address space alone: nothing is written there on the host, so the system gives no memory. */
  @SuppressWarnings("restricted") // the flags allow native access
  private IntArray resident(int blocks) {
    long length = TornadoNativeArray.ARRAY_HEADER + 4L * blocks * WriteKernel.BLOCK;
    address = UnsafeApi.allocateMemory(length);
    return IntArray.fromSegmentShallow(MemorySegment.ofAddress(address).reinterpret(length));
  }

  private void warmUp(Consumer<String> progress) {
    ints.init(0);
    ints.set(StepLayout.KV_HEADS, 1);
    ints.set(StepLayout.Q_GROUP, 1);
    ints.set(StepLayout.HEAD_DIM, 16);
    ints.set(StepLayout.BLOCKS, 1);
    ints.set(StepLayout.CHUNKS, 1);
    ints.set(StepLayout.ELEMENT_BYTES, Float.BYTES);
    ints.set(StepLayout.EXACT_PARTS, 1);
    ints.set(StepLayout.SLOT_TABLE, StepLayout.INTS);
    ints.set(StepLayout.TABLES_AT, StepLayout.INTS);
    ints.set(StepLayout.CHOSEN_AT, StepLayout.MERGED_AT + 4 * StepLayout.partialLength(16));
    ints.set(StepLayout.ATTEND_GROUPS, 1);
    ints.set(StepLayout.WEIGHTS_AT, weightsAt());
    ints.set(StepLayout.MORE_CHOSEN_AT, moreChosenAt());
    floats.init(0f);
    StepInputs.writeConstants(floats);
    choice.init(0);
    smallStage.init(0);
    rowsSmall.init(0);
    largeStage.init(0);
    for (IntArray to : List.of(choice, rowsSmall, largeStage)) {
      for (int i = 0; i < StepLayout.HEADS; i++) {
        to.set(i, ints.get(i));
      }
    }
    writeCount.set(0, 0);
    for (Graph graph : Graph.values()) {
      progress.accept(LaneGraphs.id(graph));
      execute(graph);
    }
  }

  /** Sets the grids for a step. */
  void shape(int kvHeads, int blocks, int chunks, int parts, int rowSlots) {
    graphs.shape(kvHeads, blocks, chunks, parts, rowSlots);
  }

  /** Runs a graph; on the lane's thread. */
  TornadoExecutionResult execute(Graph graph) {
    TornadoExecutionResult executed = plan.withGraph(graph.index).execute();
    if (profiling) {
      kernelNs += executed.getProfilerResult().getDeviceKernelTime();
    }
    return executed;
  }

  /** Begins to count the time of kernels. */
  void startProfile() {
    on(() -> {
      plan.withProfiler(ProfilerMode.SILENT);
      profiling = true;
      kernelNs = 0;
      return this;
    });
  }

  /** Ends it; returns nanoseconds. */
  long endProfile() {
    return on(() -> {
      plan.withoutProfiler();
      profiling = false;
      return kernelNs;
    });
  }

  /** Brings so many floats of {@link #moreChosenAt} to the host. */
  void downloadMore(TornadoExecutionResult executed, int count) {
    executed.transferToHost(new DataRange(scratch).withOffset(moreChosenAt()).withSize(count));
  }

  /** Runs work on the lane's thread and waits for it. */
  <T> T on(Supplier<T> work) {
    try {
      return CompletableFuture.supplyAsync(work, thread).get();
    } catch (ExecutionException e) {
      if (e.getCause() instanceof KvtierException refused) {
        throw refused;
      }
      if (outOfMemory(e)) {
        throw new KvtierException(
            Code.EXHAUSTED,
            ("the device has no room for %s, %d bytes and its scratch; others may use its memory"
                    + " too: start the worker with fewer device bytes")
                .formatted(name, arena.bytesMax()),
            e);
      }
      throw new IllegalStateException("%s failed: %s".formatted(name, e.getCause()), e.getCause());
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new KvtierException(Code.UNAVAILABLE, "interrupted while waiting for the device");
    }
  }

  private static boolean outOfMemory(Throwable thrown) {
    for (Throwable cause = thrown; cause != null; cause = cause.getCause()) {
      if (cause instanceof TornadoOutOfMemoryException) {
        return true;
      }
    }
    return false;
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
