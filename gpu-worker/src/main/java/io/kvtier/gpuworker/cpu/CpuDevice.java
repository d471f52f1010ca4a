package io.kvtier.gpuworker.cpu;

import io.kvtier.attention.Kernels;
import io.kvtier.gpuworker.device.AttentionDevice;
import io.kvtier.gpuworker.device.DeviceLayer;
import io.kvtier.gpuworker.device.DeviceMemory;
import io.kvtier.gpuworker.device.LayerShape;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import org.agrona.concurrent.UnsafeBuffer;

/**
 * The processor as a device: off-heap memory, vector kernels where the machine has them, a fixed
 * number of threads. Closes its memory and ends its threads.
 */
public final class CpuDevice implements AttentionDevice {
  private static final int COPIED_BYTES = 128 << 20;
  private static final int COPY_ROUNDS = 8;

  private final DeviceMemory memory;
  final Workshop workshop;

  /** A device that gives sessions at most so many bytes and works on all processors. */
  public CpuDevice(long bytesMax) {
    this(bytesMax, Runtime.getRuntime().availableProcessors(), Kernels.best());
  }

  /**
   * A device.
   *
   * @param bytesMax bytes for sessions
   * @param threads that work on one query of a layer, 1 or more
   */
  public CpuDevice(long bytesMax, int threads, Kernels kernels) {
    this.memory = new DeviceMemory(bytesMax);
    this.workshop = new Workshop(kernels, threads);
  }

  @Override
  public String name() {
    return "cpu, %d threads, %s"
        .formatted(workshop.team().threads(), workshop.kernels().description());
  }

  @Override
  public DeviceMemory memory() {
    return memory;
  }

  /** Every thread copies its part of buffers that no cache holds. */
  @Override
  public double copyBandwidth() {
    int threads = workshop.team().threads();
    int length = COPIED_BYTES / threads;
    List<UnsafeBuffer> buffers = new ArrayList<>();
    for (int i = 0; i < 2 * threads; i++) {
      buffers.add(new UnsafeBuffer(ByteBuffer.allocateDirect(length)));
    }
    double best = 0;
    for (int round = 0; round < COPY_ROUNDS; round++) {
      long startNs = System.nanoTime();
      workshop
          .team()
          .run(threads, i -> buffers.get(2 * i).putBytes(0, buffers.get(2 * i + 1), 0, length));
      best = Math.max(best, 2.0 * length * threads * 1e9 / (System.nanoTime() - startNs));
    }
    return best;
  }

  @Override
  public boolean attendsFiner() {
    return true;
  }

  @Override
  public DeviceLayer newLayer(int layer, LayerShape shape) {
    return new CpuLayer(layer, shape, memory, workshop);
  }

  @Override
  public void close() {
    memory.close();
    workshop.close();
  }
}
