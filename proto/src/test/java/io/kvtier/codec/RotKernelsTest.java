package io.kvtier.codec;

import static io.kvtier.page.PageLayout.TOKENS;
import static org.assertj.core.api.Assertions.assertThat;

import io.kvtier.page.Codec;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

class RotKernelsTest {
  /**
   * Coordinates at every threshold, next to it, and at the ends of fp32 get the code that counting
   * thresholds gives: a tie takes the larger code on both sides of 0.
   */
  @ParameterizedTest
  @EnumSource(names = {"ROT4", "ROT3", "ROT2", "ROT1"})
  void coordinatesAtThresholdsAreCodedAsSpecified(Codec codec) {
    RotLevels levels = RotLevels.of(codec.bits());
    List<Float> coordinates =
        new ArrayList<>(
            List.of(0f, -0f, Float.MIN_VALUE, -Float.MIN_VALUE, 3.75f, -3.75f, 16f, -16f, 1e30f));
    for (int code = 1; code < levels.count(); code++) {
      float threshold = levels.threshold(code);
      coordinates.addAll(
          List.of(threshold, Math.nextUp(threshold), Math.nextDown(threshold), -threshold));
    }
    for (int quarter = -40; quarter <= 40; quarter++) {
      coordinates.add(quarter / 8f);
    }
    for (float coordinate : coordinates) {
      int expected = 0;
      for (int code = 1; code < levels.count(); code++) {
        expected += levels.threshold(code) <= coordinate ? 1 : 0;
      }
      assertThat(codeOf(codec, coordinate)).as("%s", coordinate).isEqualTo(expected);
    }
  }

  private static int codeOf(Codec codec, float coordinate) {
    int[] tables = VectorRotCodec.tables(RotLevels.of(codec.bits()));
    float[] y = new float[RotKernels.scratchLength(16)];
    float[] ones = new float[TOKENS];
    Arrays.fill(y, coordinate);
    Arrays.fill(ones, 1);
    byte[] codes = new byte[TOKENS * 64];
    float[] partials = new float[TOKENS * RotKernels.PARTIALS];
    for (int first = 0; first < RotKernels.PARTIALS; first += Lanes.LANES) {
      RotKernels.quantize(y, ones, 16, 2, ones, tables, codec.bits(), codes, 64, first, partials);
    }
    assertThat(codes[0]).isEqualTo(codes[15]).isEqualTo(codes[64 + 7]);
    float level = RotLevels.of(codec.bits()).level(codes[0]);
    assertThat(partials[3]).isEqualTo(level * level);
    return codes[0];
  }
}
