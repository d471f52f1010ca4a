package io.kvtier.gpuworker.tornado;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import java.lang.foreign.MemorySegment;
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
  private static final int COPIED_INTS = 1 << 23;
  private static final int COPY_ROUNDS = 12;
  private static final int ONCE = DataTransferMode.FIRST_EXECUTION;

  /** The graphs of the plan, in its order. */
  enum Graph {
    WRITE_SMALL(0),
    WRITE_LARGE(1),
    WINDOW(2),
    CHOOSE(3),
    DENSE(4),
    ROWS_SMALL(5),
    ROWS_LARGE(6),
    PAGES(7);

    private final int index;

    Graph(int index) {
      this.index = index;
    }
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
  private final LaneGraphs graphs;

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
      throw e;
    }
  }

  /** Tokens that a step can choose, over all heads, the head with most counting for each. */
  int chosenMax() {
    return scoresMax / 4;
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
    ints.set(StepLayout.QUERY_THREADS, StepLayout.GROUP);
    floats.init(0f);
    tables.init(0);
    smallStage.init(0);
    largeStage.init(0);
    writeCount.set(0, 0);
    for (Graph graph : Graph.values()) {
      progress.accept(LaneGraphs.id(graph));
      execute(graph);
    }
  }

  /** Sets the grids for a step, and says so in its figures. */
  void shape(int kvHeads, int group, int blocks, int chunks, int rowSlots, int[] figures) {
    graphs.shape(kvHeads, group, blocks, chunks, rowSlots, figures);
  }

  /** Runs a graph; on the lane's thread. */
  TornadoExecutionResult execute(Graph graph) {
    return plan.withGraph(graph.index).execute();
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
