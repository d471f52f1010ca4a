package io.kvtier.gpuworker.tornado;

import io.kvtier.gpuworker.device.AttentionDevice;
import io.kvtier.gpuworker.device.DeviceLayerContractTest;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;

/** The contract of layers, on the first device that TornadoVM sees. */
class TornadoLayerTest extends DeviceLayerContractTest {
  private static final TestLanes LANES = new TestLanes();

  @BeforeAll
  static void start() {
    LANES.start(1);
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
