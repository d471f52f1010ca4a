package io.kvtier.gpuworker.tornado;

import io.kvtier.gpuworker.device.AttentionDevice;
import io.kvtier.gpuworker.device.AttentionDeviceContractTest;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;

/**
 * The contract of devices, on the first device that TornadoVM sees, where a work-group makes a
 * head's choice by itself.
 */
class TornadoDeviceTest extends AttentionDeviceContractTest {
  private static final TestLanes LANES = new TestLanes();

  @BeforeAll
  static void start() {
    LANES.start(1, 1);
  }

  @AfterAll
  static void stop() {
    LANES.close();
  }

  @Override
  protected AttentionDevice device(long bytesMax) {
    return LANES.device(bytesMax);
  }
}
