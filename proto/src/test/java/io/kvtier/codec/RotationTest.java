package io.kvtier.codec;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import java.util.SplittableRandom;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class RotationTest {
  @ParameterizedTest
  @ValueSource(ints = {16, 48, 64, 80, 96, 128, 240, 256})
  void invertUndoesApplyAndNormsStay(int headDim) {
    SplittableRandom random = new SplittableRandom(headDim);
    float[] x = new float[headDim + 3];
    for (int i = 0; i < x.length; i++) {
      x[i] = (float) random.nextGaussian();
    }
    float[] y = x.clone();
    Rotation rotation = new Rotation(headDim);
    rotation.apply(y, 3);
    assertThat(norm(y)).isCloseTo(norm(x), within(1e-4));
    assertThat(y).isNotEqualTo(x);
    rotation.invert(y, 3);
    for (int i = 0; i < x.length; i++) {
      assertThat(y[i]).isCloseTo(x[i], within(1e-5f));
    }
  }

  @ParameterizedTest
  @ValueSource(ints = {64, 80, 96, 128, 256})
  void oneHugeChannelIsSpreadOverItsBlock(int headDim) {
    float[] x = new float[headDim];
    x[5] = 1000;
    new Rotation(headDim).apply(x, 0);
    int block = Integer.highestOneBit(headDim);
    for (int i = 0; i < block; i++) {
      assertThat(Math.abs(x[i])).isCloseTo((float) (1000 / Math.sqrt(block)), within(1e-2f));
    }
  }

  private static double norm(float[] x) {
    double sum = 0;
    for (float v : x) {
      sum += v * v;
    }
    return Math.sqrt(sum);
  }
}
