package io.kvtier.gpuworker.tornado;

import static org.assertj.core.api.Assertions.assertThat;

import org.junit.jupiter.api.Test;
import uk.ac.manchester.tornado.api.runtime.TornadoRuntimeProvider;

class LaneTest {
  @Test
  void starts() {
    long t0 = System.nanoTime();
    try (Lane lane =
        new Lane(
            "lane 0",
            TornadoRuntimeProvider.getTornadoRuntime().getDefaultDevice(),
            64 << 20,
            what ->
                System.out.printf("%s at %.1f s%n", what, (System.nanoTime() - t0) / 1e9))) {
      System.out.printf("ready at %.1f s%n", (System.nanoTime() - t0) / 1e9);
      for (Lane.Graph graph : Lane.Graph.values()) {
        long best = Long.MAX_VALUE;
        for (int i = 0; i < 50; i++) {
          long t1 = System.nanoTime();
          lane.on(() -> lane.execute(graph));
          best = Math.min(best, System.nanoTime() - t1);
        }
        System.out.printf("%s %d us%n", graph, best / 1000);
      }
      assertThat(lane.arena.bytesUsed()).isZero();
    }
  }
}
