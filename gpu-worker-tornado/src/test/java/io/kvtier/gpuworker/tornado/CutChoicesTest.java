package io.kvtier.gpuworker.tornado;

import io.kvtier.gpuworker.device.AttentionDevice;
import io.kvtier.gpuworker.device.AttentionDeviceContractTest;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;

/** The contract of devices where choices are cut into chunks, as on a GPU of many units. */
class CutChoicesTest extends AttentionDeviceContractTest {
  private static final TestLanes LANES = new TestLanes();

  @BeforeAll
  static void start() {
    LANES.start(1, 1000);
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
