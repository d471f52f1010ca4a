package io.kvtier.gpuworker.device;

import static org.assertj.core.api.Assertions.assertThat;

import io.kvtier.attention.Kernels;
import io.kvtier.gpuworker.core.HeadPolicy;
import io.kvtier.gpuworker.cpu.CpuDevice;
import io.kvtier.gpuworker.cpu.PoisonedScratch;
import io.kvtier.page.Residence;
import java.util.List;
import java.util.SplittableRandom;
import org.junit.jupiter.api.Test;

class CpuDeviceTest extends AttentionDeviceContractTest {
  @Override
  protected AttentionDevice device(long bytesMax) {
    return new CpuDevice(bytesMax);
  }

  /** Rows are put into scratch that is never cleared: what was in it before must not be seen. */
  @Test
  void whatTheScratchHeldBeforeIsNotSeen() {
    for (Kernels kernels : List.of(Kernels.best(), Kernels.scalar())) {
      try (CpuDevice device = new CpuDevice(64 << 20, 1, kernels)) {
        for (int most : new int[] {3, 40, 400}) {
          LayerShape shape = LayerFixture.shape(4, 2, most == 40 ? 80 : 64);
          List<HeadPolicy> policies =
              List.of(
                  new HeadPolicy(Residence.TWO_PLANES, most, most, 0),
                  new HeadPolicy(Residence.ONE_PLANE, most, most, 0));
          LayerFixture fixture = new LayerFixture(device, shape, 700, policies, 3);
          LayerPass pass = fixture.layer.newPass(policies);
          int length = shape.qHeads() * shape.headDim();
          float[] query = LayerFixture.gaussian(new SplittableRandom(4), length, 1.2);
          float[][] outputs = new float[2][length];
          for (int i = 0; i < 2; i++) {
            pass.choose(query, 0, new float[0], new float[0], 0);
            if (i == 1) {
              PoisonedScratch.poison(device, shape);
            }
            fixture.giveAll(pass, fixture::rows, 5);
            pass.finish(outputs[i], 0, new float[shape.qHeads()], 0);
          }
          assertThat(outputs[0]).doesNotContain(Float.NaN);
          assertThat(outputs[1]).isEqualTo(outputs[0]);
          fixture.layer.release();
        }
      }
    }
  }
}
