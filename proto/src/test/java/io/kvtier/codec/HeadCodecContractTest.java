package io.kvtier.codec;

import static io.kvtier.page.PageLayout.TOKENS;
import static org.assertj.core.api.Assertions.assertThat;

import io.kvtier.page.Codec;
import io.kvtier.page.PageLayout;
import java.util.Arrays;
import java.util.SplittableRandom;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.MethodSource;

/**
 * What holds for every codec, head dim, number of tokens and kind of rows: scalar and vector code
 * agree to the bit, nothing outside the side's sections is touched, and rows come back within the
 * codec's error.
 */
class HeadCodecContractTest {
  private static final int[] HEAD_DIMS = {16, 32, 48, 64, 80, 96, 128, 176, 256};
  private static final int[] TOKEN_COUNTS = {1, 17, 63, 64};
  private static final byte UNTOUCHED = 0x5A;

  static Stream<Arguments> codecsAndHeadDims() {
    return Arrays.stream(Codec.values())
        .flatMap(codec -> Arrays.stream(HEAD_DIMS).mapToObj(d -> Arguments.of(codec, d)));
  }

  @ParameterizedTest
  @MethodSource("codecsAndHeadDims")
  void scalarAndVectorAgreeAndErrorsAreBounded(Codec codec, int headDim) {
    PageLayout layout = new PageLayout(codec, codec, 1, headDim);
    for (HeadSide side : new HeadSide[] {HeadSide.keys(layout), HeadSide.values(layout)}) {
      HeadCodec scalar = HeadCodec.of(side, false);
      HeadCodec vector = HeadCodec.of(side, true);
      for (CodecSamples samples : CodecSamples.values()) {
        float[] rows = samples.rows(headDim, headDim);
        for (int tokens : TOKEN_COUNTS) {
          String what = side + ", " + samples + ", tokens " + tokens;
          byte[] head = encodedAlike(scalar, vector, layout, rows, tokens, what);
          float[] decoded = decodedAlike(scalar, vector, head, headDim, tokens, what);
          requireSmallError(side, samples, rows, decoded, tokens, what);
        }
      }
    }
  }

  private static byte[] encodedAlike(
      HeadCodec scalar,
      HeadCodec vector,
      PageLayout layout,
      float[] rows,
      int tokens,
      String what) {
    byte[] first = new byte[layout.headLength() + HeadCodec.SLACK];
    Arrays.fill(first, UNTOUCHED);
    byte[] second = first.clone();
    scalar.encode(rows, 0, layout.headDim(), tokens, first);
    vector.encode(rows, 0, layout.headDim(), tokens, second);
    assertThat(Arrays.mismatch(first, second)).as(what).isEqualTo(-1);
    return first;
  }

  private static float[] decodedAlike(
      HeadCodec scalar, HeadCodec vector, byte[] head, int headDim, int tokens, String what) {
    float[] first = new float[TOKENS * headDim];
    float[] second = new float[TOKENS * headDim];
    scalar.decode(head, tokens, first, 0, headDim);
    vector.decode(head, tokens, second, 0, headDim);
    assertThat(Arrays.mismatch(first, second)).as(what).isEqualTo(-1);
    return first;
  }

  private static void requireSmallError(
      HeadSide side, CodecSamples samples, float[] rows, float[] decoded, int tokens, String what) {
    int length = tokens * side.headDim();
    if (side.codec().family() == Codec.Family.AFFINE) {
      requireHalfASteps(side, rows, decoded, tokens, what);
      return;
    }
    double difference = 0;
    double norm = 0;
    for (int i = 0; i < length; i++) {
      difference += Math.pow(rows[i] - decoded[i], 2);
      norm += Math.pow(rows[i], 2);
    }
    // The smallest fp16 is 6e-8; beyond gaussians the levels are not the best ones.
    double looseness = samples == CodecSamples.GAUSSIAN ? 1.1 : 1.4;
    double bound = looseness * rotError(side.codec()) * Math.sqrt(norm) + 1e-6 * length;
    assertThat(Math.sqrt(difference)).as(what).isLessThanOrEqualTo(bound);
  }

  /**
   * Relative error of a gaussian vector that keeps its norm: √(2 - 2√(1 - D)), with the distortion
   * D of so many Lloyd-Max levels (Max, 1960, table I). raw16: half a unit in the last place.
   */
  static double rotError(Codec codec) {
    if (codec == Codec.ROT8) {
      // What four bits leave, cut in 16 over its width, which is the widest coordinate's.
      return .18 * rotError(Codec.ROT4);
    }
    double distortion =
        switch (codec) {
          case ROT4 -> .009497;
          case ROT3 -> .03454;
          case ROT2 -> .1175;
          case ROT1 -> .3634;
          default -> 1.5e-5;
        };
    return Math.sqrt(2 - 2 * Math.sqrt(1 - distortion));
  }

  private static void requireHalfASteps(
      HeadSide side, float[] rows, float[] decoded, int tokens, String what) {
    float min = Float.POSITIVE_INFINITY;
    float max = Float.NEGATIVE_INFINITY;
    int headDim = side.headDim();
    for (int i = 0; i < tokens * headDim; i++) {
      min = Math.min(min, rows[i]);
      max = Math.max(max, rows[i]);
    }
    float steps = (1 << side.bits()) - 1;
    // Zero and step are rounded to 11 bits each.
    float bound = (max - min) / steps / 2 + (max - min + Math.abs(min)) * 0x1p-10f + 1e-6f;
    for (int i = 0; i < tokens * headDim; i++) {
      assertThat(Math.abs(rows[i] - decoded[i])).as(what).isLessThanOrEqualTo(bound);
    }
  }

  @ParameterizedTest
  @EnumSource
  void gaussiansComeBackWithTheErrorOfTheLevels(Codec codec) {
    PageLayout layout = new PageLayout(codec, codec, 1, 128);
    float[] rows = CodecSamples.GAUSSIAN.rows(3, 128);
    double error = 0;
    double norm = 0;
    for (HeadSide side : new HeadSide[] {HeadSide.keys(layout), HeadSide.values(layout)}) {
      byte[] head = new byte[layout.headLength() + HeadCodec.SLACK];
      float[] decoded = new float[rows.length];
      HeadCodec scalar = HeadCodec.of(side, false);
      scalar.encode(rows, 0, 128, TOKENS, head);
      scalar.decode(head, TOKENS, decoded, 0, 128);
      for (int i = 0; i < rows.length; i++) {
        error += Math.pow(rows[i] - decoded[i], 2);
        norm += Math.pow(rows[i], 2);
      }
    }
    double relative = Math.sqrt(error / norm);
    switch (codec.family()) {
      // A 64th of the variance is the mean's.
      case ROT ->
          assertThat(relative / (rotError(codec) * Math.sqrt(63 / 64.)))
              .isBetween(codec.hasRest() ? .5 : .96, 1.02);
      case AFFINE -> {
        // The range of 64 gaussians is 4.75 deviations (Tippett, 1925); a uniform step's error
        // is step / √12, unless there are no levels but the extremes.
        double step = 4.75 / ((1 << codec.bits()) - 1);
        if (codec.bits() > 1) {
          assertThat(relative / (step / Math.sqrt(12))).isBetween(.93, 1.03);
        } else {
          assertThat(relative).isBetween(1.5, 1.8);
        }
      }
      case RAW -> assertThat(relative).isBetween(.001, .002);
    }
  }

  @ParameterizedTest
  @MethodSource("codecsAndHeadDims")
  void anyBytesDecodeAlike(Codec codec, int headDim) {
    PageLayout layout = new PageLayout(codec, codec, 1, headDim);
    SplittableRandom random = new SplittableRandom(headDim + codec.id());
    byte[] head = new byte[layout.headLength() + HeadCodec.SLACK];
    for (int round = 0; round < 4; round++) {
      random.nextBytes(head);
      for (HeadSide side : new HeadSide[] {HeadSide.keys(layout), HeadSide.values(layout)}) {
        HeadCodec scalar = HeadCodec.of(side, false);
        decodedAlike(scalar, HeadCodec.of(side, true), head, headDim, TOKENS, side.toString());
      }
    }
  }

  @Test
  void rowsFarApartAreReadAndWrittenAsTheyLie() {
    PageLayout layout = new PageLayout(Codec.ROT4, Codec.AFFINE2, 1, 80);
    float[] together = CodecSamples.GAUSSIAN.rows(5, 80);
    int stride = 301;
    float[] apart = new float[7 + TOKENS * stride];
    for (int t = 0; t < TOKENS; t++) {
      System.arraycopy(together, t * 80, apart, 7 + t * stride, 80);
    }
    for (HeadSide side : new HeadSide[] {HeadSide.keys(layout), HeadSide.values(layout)}) {
      for (boolean vectors : new boolean[] {false, true}) {
        HeadCodec codec = HeadCodec.of(side, vectors);
        byte[] expected = new byte[layout.headLength() + HeadCodec.SLACK];
        byte[] actual = expected.clone();
        codec.encode(together, 0, 80, TOKENS, expected);
        codec.encode(apart, 7, stride, TOKENS, actual);
        assertThat(actual).isEqualTo(expected);
        float[] rows = new float[apart.length];
        Arrays.fill(rows, 9);
        codec.decode(actual, TOKENS - 1, rows, 7, stride);
        assertThat(rows[6]).isEqualTo(9);
        assertThat(rows[7 + 80]).isEqualTo(9);
        assertThat(rows[7 + (TOKENS - 1) * stride]).isEqualTo(9);
        assertThat(rows[7 + (TOKENS - 2) * stride + 79]).isNotEqualTo(9);
      }
    }
  }

  @ParameterizedTest
  @EnumSource
  void everyMistakeInAnEncoderIsSeen(WrittenOutRotCodec.Mistake mistake) {
    HeadSide side = HeadSide.keys(new PageLayout(Codec.ROT4, Codec.ROT4, 1, 256));
    HeadCodec other = new WrittenOutRotCodec(side, mistake);
    // Sums in another order differ in the last bit, which seldom reaches an fp16 scale or a code:
    // hence so many pages.
    int different = 0;
    for (int seed = 0; seed < 300; seed++) {
      different += sameBytes(HeadCodec.of(side, seed % 8 != 0), other, rows(seed)) ? 0 : 1;
    }
    if (mistake == WrittenOutRotCodec.Mistake.NONE) {
      assertThat(different).isZero();
    } else {
      System.out.println(mistake + " is seen in " + different + " of 300 pages");
      assertThat(different).isPositive();
    }
  }

  /**
   * Gaussian rows; in every other page pairs of opposite tokens of two equal channels, half of
   * whose rotated coordinates are 0, a threshold.
   */
  private static float[] rows(int seed) {
    float[] rows = CodecSamples.GAUSSIAN.rows(seed, 256);
    if (seed % 2 == 0) {
      Arrays.fill(rows, 0);
      for (int t = 0; t < TOKENS; t++) {
        rows[t * 256 + t / 2] = t % 2 == 0 ? 1 : -1;
        rows[t * 256 + 100] = t % 2 == 0 ? 1 : -1;
      }
    }
    return rows;
  }

  private static boolean sameBytes(HeadCodec codec, HeadCodec other, float[] rows) {
    PageLayout layout = new PageLayout(Codec.ROT4, Codec.ROT4, 1, 256);
    byte[] first = new byte[layout.headLength() + HeadCodec.SLACK];
    byte[] second = first.clone();
    codec.encode(rows, 0, 256, TOKENS, first);
    other.encode(rows, 0, 256, TOKENS, second);
    return Arrays.equals(first, second);
  }
}
