package io.kvtier.gpuworker.device;

import io.kvtier.gpuworker.cpu.CpuDevice;

/** The contract of layers, on the processor. */
class CpuLayerTest extends DeviceLayerContractTest {
  @Override
  protected AttentionDevice device(long bytesMax) {
    return new CpuDevice(bytesMax);
  }
}
