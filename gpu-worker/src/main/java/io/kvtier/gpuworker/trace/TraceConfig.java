package io.kvtier.gpuworker.trace;

import io.kvtier.KvtierException;
import java.nio.file.Path;

/**
 * A trace to be written.
 *
 * @param file written from its start; what it held before is gone
 * @param bytesMax most bytes of the file, 4 KiB or more; steps beyond it are counted and dropped
 */
public record TraceConfig(Path file, long bytesMax) {
  /** About two million steps of a layer. */
  public static final long BYTES_MAX_DEFAULT = 256L << 20;

  public TraceConfig {
    KvtierException.requireInRange("trace bytes", bytesMax, 4096, Long.MAX_VALUE);
  }
}
