package io.kvtier.codec;

import static io.kvtier.page.PageLayout.TOKENS;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import io.kvtier.page.Codec;
import io.kvtier.page.PageLayout;
import io.kvtier.page.Section;
import org.agrona.concurrent.UnsafeBuffer;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class RotLevelsTest {
  @ParameterizedTest
  @ValueSource(ints = {1, 2, 3, 4})
  void levelsRiseAreSymmetricalAndLieBetweenTheirThresholds(int bits) {
    RotLevels levels = RotLevels.of(bits);
    assertThat(levels.count()).isEqualTo(1 << bits);
    for (int code = 0; code < levels.count(); code++) {
      assertThat(levels.level(code)).isEqualTo(-levels.level(levels.count() - 1 - code));
      if (code > 0) {
        assertThat(levels.threshold(code)).isBetween(levels.level(code - 1), levels.level(code));
      }
    }
    assertThat(levels.threshold(levels.count() / 2)).isZero();
  }

  @ParameterizedTest
  @ValueSource(ints = {2, 3, 4})
  void twoPlanesAddUpToTheCoarseLevels(int bits) {
    RotLevels levels = RotLevels.of(bits);
    for (int high = 0; high < 4; high++) {
      float sum =
          (2 * (high >> 1) - 1) * levels.planeWeight(0)
              + (2 * (high & 1) - 1) * levels.planeWeight(1);
      assertThat(sum).isCloseTo(levels.coarseLevel(high), within(1e-6f));
    }
    assertThat(levels.coarseLevel(3)).isEqualTo(-levels.coarseLevel(0));
  }

  /** The mean of a standard normal between two thresholds: (φ(a) - φ(b)) / (Φ(b) - Φ(a)). */
  @ParameterizedTest
  @ValueSource(ints = {3, 4})
  void coarseLevelsAreTheMeansOfANormalBetweenTheCoarseThresholds(int bits) {
    RotLevels levels = RotLevels.of(bits);
    double coarse = levels.threshold(levels.count() * 3 / 4);
    double low = mean(0, coarse);
    double high = mean(coarse, 8);
    assertThat((double) levels.coarseLevel(2)).isCloseTo(low, within(.001));
    assertThat((double) levels.coarseLevel(3)).isCloseTo(high, within(.001));
    assertThat((double) RotLevels.SIGN_LEVEL).isCloseTo(mean(0, 8), within(.003));
  }

  private static double mean(double from, double to) {
    double mass = 0;
    double moment = 0;
    double width = (to - from) / 100_000;
    for (int i = 0; i < 100_000; i++) {
      double x = from + (i + .5) * width;
      double density = Math.exp(-x * x / 2);
      mass += density;
      moment += x * density;
    }
    return moment / mass;
  }

  @Test
  void theFirstTwoPlanesOfARot4PageAreItsSketch() {
    PageLayout layout = new PageLayout(Codec.ROT4, Codec.ROT4, 1, 96);
    byte[] head = new byte[layout.headLength() + HeadCodec.SLACK];
    float[] rows = CodecSamples.GAUSSIAN.rows(1, 96);
    HeadCodec.of(HeadSide.keys(layout), false).encode(rows, 0, 96, TOKENS, head);
    UnsafeBuffer bytes = new UnsafeBuffer(head);
    int sign = layout.offsetInHead(Section.K_SIGN);
    int coarse = layout.offsetInHead(Section.K_COARSE);
    int fine = layout.offsetInHead(Section.K_FINE);
    float[] sketch = new float[96 * TOKENS];
    float[] full = new float[96 * TOKENS];
    Rot4.sketchLevels(bytes, sign, bytes, coarse, 96, sketch);
    Rot4.keyLevels(bytes, sign, coarse, bytes, fine, 96, full);
    float threshold = RotLevels.of(4).threshold(12);
    for (int i = 0; i < full.length; i++) {
      float magnitude = Math.abs(full[i]) < threshold ? .506f : 1.625f;
      assertThat(sketch[i]).isEqualTo(Math.copySign(magnitude, full[i]));
      boolean notNegative =
          (head[sign + i / TOKENS / 8 * TOKENS + i % TOKENS] >> (i / TOKENS % 8) & 1) == 1;
      assertThat(notNegative).isEqualTo(full[i] > 0);
    }
  }

  @Test
  void productsOfRot4CodesAreThoseOfTheDecodedRows() {
    int headDim = 80;
    PageLayout layout = new PageLayout(Codec.ROT4, Codec.ROT4, 1, headDim);
    byte[] head = new byte[layout.headLength() + HeadCodec.SLACK];
    float[] rows = CodecSamples.GAUSSIAN.rows(2, headDim);
    HeadCodec keys = HeadCodec.of(HeadSide.keys(layout), false);
    HeadCodec values = HeadCodec.of(HeadSide.values(layout), false);
    keys.encode(rows, 0, headDim, TOKENS, head);
    values.encode(rows, 0, headDim, TOKENS, head);
    float[] decodedKeys = new float[rows.length];
    float[] decodedValues = new float[rows.length];
    keys.decode(head, TOKENS, decodedKeys, 0, headDim);
    values.decode(head, TOKENS, decodedValues, 0, headDim);
    UnsafeBuffer bytes = new UnsafeBuffer(head);
    Rotation rotation = new Rotation(headDim);
    for (int t = 0; t < TOKENS; t++) {
      float[] query = CodecSamples.GAUSSIAN.rows(100 + t, headDim);
      float[] rotated = query.clone();
      rotation.apply(rotated, 0);
      float dot =
          Rot4.keyDot(
                  bytes,
                  layout.offsetInHead(Section.K_SIGN),
                  layout.offsetInHead(Section.K_COARSE),
                  bytes,
                  layout.offsetInHead(Section.K_FINE),
                  t,
                  rotated,
                  0,
                  headDim)
              * Rot4.half(bytes, layout.offsetInHead(Section.K_SCALES), t);
      float[] value = new float[headDim];
      float scale = Rot4.half(bytes, layout.offsetInHead(Section.V_SCALES), t);
      Rot4.addValue(bytes, layout.offsetInHead(Section.V_CODES), t, scale, value, 0, headDim);
      rotation.invert(value, 0);
      float expected = 0;
      for (int i = 0; i < headDim; i++) {
        dot += query[i] * Rot4.half(bytes, layout.offsetInHead(Section.K_MEAN), i);
        value[i] += Rot4.half(bytes, layout.offsetInHead(Section.V_MEAN), i);
        expected += query[i] * decodedKeys[t * headDim + i];
        assertThat(value[i]).isCloseTo(decodedValues[t * headDim + i], within(1e-5f));
      }
      assertThat(dot).isCloseTo(expected, within(1e-4f));
    }
  }
}
