package io.kvtier.deploy.command;

import io.kvtier.gpuworker.GpuWorkerConfig;
import io.kvtier.gpuworker.trace.TraceConfig;
import java.nio.file.Path;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Option;

/** Whether a worker records its steps, and where. */
final class TraceOptions {
  @Option(
      names = "--trace",
      description = "file to record each layer of each step to; show it with: kvtier trace FILE")
  private @Nullable Path trace;

  @Option(
      names = "--trace-bytes",
      defaultValue = "256m",
      converter = ByteSize.class,
      description =
          "most bytes of that file; later steps are dropped and counted (default:"
              + " ${DEFAULT-VALUE})")
  private long traceBytes;

  boolean wanted() {
    return trace != null;
  }

  /** A worker's settings with the trace that was asked for. */
  GpuWorkerConfig applyTo(GpuWorkerConfig worker) {
    return trace == null ? worker : worker.withTrace(new TraceConfig(trace, traceBytes));
  }
}
