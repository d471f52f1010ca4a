package io.kvtier.gpuworker.tornado;

import io.kvtier.gpuworker.device.AttentionDevice;
import java.util.ArrayList;
import java.util.List;
import uk.ac.manchester.tornado.api.runtime.TornadoRuntimeProvider;

/** Lanes that the tests of a class share: each takes seconds to compile. */
final class TestLanes implements AutoCloseable {
  private static final long BYTES = 512L << 20;

  private final List<Lane> lanes = new ArrayList<>();

  void start(int count) {
    for (int i = 0; i < count; i++) {
      lanes.add(
          new Lane(
              "lane " + i,
              TornadoRuntimeProvider.getTornadoRuntime().getDefaultDevice(),
              BYTES,
              graph -> {}));
    }
  }

  Lane first() {
    return lanes.getFirst();
  }

  /** A device on these lanes, which outlive it. */
  AttentionDevice device(long bytesMax) {
    return new TornadoDevice("tornado under test", lanes, bytesMax, false);
  }

  @Override
  public void close() {
    lanes.forEach(Lane::close);
  }
}
