package io.kvtier.gpuworker.device;

import io.kvtier.gpuworker.cpu.CpuDevice;

class CpuDeviceTest extends AttentionDeviceContractTest {
  @Override
  protected AttentionDevice device(long bytesMax) {
    return new CpuDevice(bytesMax);
  }
}
