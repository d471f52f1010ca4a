package io.kvtier.codec;

import static io.kvtier.page.PageLayout.TOKENS;
import static org.assertj.core.api.Assertions.assertThat;

import java.util.SplittableRandom;
import org.agrona.concurrent.UnsafeBuffer;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** The vector version decodes to the bits that the scalar specification gives. */
class Rot4LevelsParityTest {
  @ParameterizedTest
  @ValueSource(ints = {2, 6, 64, 80, 96, 128, 256})
  void sketchAndKeysAreBitIdentical(int headDim) {
    SplittableRandom random = new SplittableRandom(headDim);
    byte[] planes = new byte[headDim * 4 * Long.BYTES];
    random.nextBytes(planes);
    UnsafeBuffer buffer = new UnsafeBuffer(planes);
    int coarse = headDim * Long.BYTES;
    int fine = 2 * coarse;
    float[] scalar = new float[headDim * TOKENS];
    float[] vector = new float[headDim * TOKENS];
    Rot4.sketchLevels(buffer, 0, buffer, coarse, headDim, scalar);
    Rot4Levels.sketch(buffer, 0, buffer, coarse, headDim, vector);
    assertThat(vector).isEqualTo(scalar);
    Rot4.keyLevels(buffer, 0, coarse, buffer, fine, headDim, scalar);
    Rot4Levels.keys(buffer, 0, coarse, buffer, fine, headDim, vector);
    assertThat(vector).isEqualTo(scalar);
    // Planted bug: planes swapped, as a decoder with the wrong order of sections would read them.
    Rot4Levels.keys(buffer, coarse, 0, buffer, fine, headDim, vector);
    assertThat(vector).isNotEqualTo(scalar);
  }
}
