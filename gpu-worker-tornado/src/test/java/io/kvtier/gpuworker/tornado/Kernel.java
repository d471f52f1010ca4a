package io.kvtier.gpuworker.tornado;

import uk.ac.manchester.tornado.api.GridScheduler;
import uk.ac.manchester.tornado.api.TaskGraph;
import uk.ac.manchester.tornado.api.TornadoExecutionPlan;
import uk.ac.manchester.tornado.api.WorkerGrid1D;
import uk.ac.manchester.tornado.api.exceptions.TornadoExecutionPlanException;

/** Runs one kernel by itself. */
final class Kernel {
  private Kernel() {}

  /** Runs a graph of one task in so many work-groups of 64. */
  static void run(TaskGraph graph, String task, int groups) {
    WorkerGrid1D grid = new WorkerGrid1D(groups * StepLayout.GROUP);
    grid.setLocalWork(StepLayout.GROUP, 1, 1);
    try (TornadoExecutionPlan plan = new TornadoExecutionPlan(graph.snapshot())) {
      plan.withGridScheduler(new GridScheduler(task, grid)).execute();
    } catch (TornadoExecutionPlanException e) {
      throw new IllegalStateException(e);
    }
  }
}
