package io.kvtier.gpuworker.cpu;

import io.kvtier.attention.Kernels;
import io.kvtier.gpuworker.device.AttentionDevice;
import io.kvtier.gpuworker.device.DeviceLayer;
import io.kvtier.gpuworker.device.DeviceMemory;
import io.kvtier.gpuworker.device.LayerShape;

/**
 * The processor as a device: off-heap memory, vector kernels where the machine has them, a fixed
 * number of threads. Closes its memory and ends its threads.
 */
public final class CpuDevice implements AttentionDevice {
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
