package io.kvtier.gpuworker.cpu;

import io.kvtier.gpuworker.device.AttentionDevice;
import io.kvtier.gpuworker.device.DeviceLayer;
import io.kvtier.gpuworker.device.DeviceMemory;
import io.kvtier.gpuworker.device.LayerShape;

/** The processor as a device: off-heap memory, scalar kernels. Closes its memory. */
public final class CpuDevice implements AttentionDevice {
  private final DeviceMemory memory;

  /** A device that gives sessions at most so many bytes. */
  public CpuDevice(long bytesMax) {
    this.memory = new DeviceMemory(bytesMax);
  }

  @Override
  public String name() {
    return "cpu";
  }

  @Override
  public DeviceMemory memory() {
    return memory;
  }

  @Override
  public DeviceLayer newLayer(int layer, LayerShape shape) {
    return new CpuLayer(layer, shape, memory);
  }

  @Override
  public void close() {
    memory.close();
  }
}
