package io.kvtier.codec;

import static io.kvtier.page.PageLayout.TOKENS;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.kvtier.KvtierException;
import io.kvtier.page.Codec;
import io.kvtier.page.Fingerprint;
import io.kvtier.page.PageIdentity;
import io.kvtier.page.PageLayout;
import io.kvtier.page.Pages;
import java.util.HexFormat;
import java.util.SplittableRandom;
import java.util.zip.CRC32C;
import org.agrona.concurrent.UnsafeBuffer;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class PageCodecTest {
  private static final Fingerprint MODEL = new Fingerprint(0x0123456789ABCDEFL, 42);

  @ParameterizedTest
  @CsvSource({
    "64, 2, 64",
    "64, 1, 1",
    "80, 3, 63",
    "96, 2, 65",
    "128, 8, 64",
    "256, 1, 17",
    "4, 2, 64"
  })
  void rot4KeepsRowsWithinItsErrorAndRaw16WithinBf16s(int headDim, int kvHeads, int tokensAsked) {
    int tokens = Math.min(tokensAsked, TOKENS);
    float[] keys = gaussian(7, tokens * kvHeads * headDim, 3);
    float[] values = gaussian(8, tokens * kvHeads * headDim, .5);
    assertThat(roundTripError(Codec.ROT4, headDim, kvHeads, tokens, keys, values)).isLessThan(.13);
    assertThat(roundTripError(Codec.RAW16, headDim, kvHeads, tokens, keys, values))
        .isLessThan(.004);
  }

  @Test
  void rot4ErrorOfGaussiansIsThatOfSixteenLloydMaxLevels() {
    float[] keys = gaussian(3, TOKENS * 2 * 128, 1);
    // The distortion of 16 levels is .0095 of the variance (Max, 1960): .0975 in norm; the page
    // mean takes 1/64 away.
    assertThat(roundTripError(Codec.ROT4, 128, 2, TOKENS, keys, keys)).isBetween(.09, .105);
  }

  @Test
  void aConstantPageIsExactUpToItsMeansHalfPrecision() {
    float[] keys = new float[TOKENS * 64];
    java.util.Arrays.fill(keys, 3.5f);
    assertThat(roundTripError(Codec.ROT4, 64, 1, TOKENS, keys, keys)).isZero();
    assertThat(roundTripError(Codec.ROT4, 64, 1, TOKENS, new float[TOKENS * 64], keys)).isZero();
  }

  @Test
  void hugeChannelsAndDenormalsStayFinite() {
    float[] keys = gaussian(5, TOKENS * 64, 1);
    for (int t = 0; t < TOKENS; t++) {
      keys[t * 64 + 9] = t % 2 == 0 ? 4096 : -4096;
      keys[t * 64 + 10] = Float.MIN_VALUE;
    }
    assertThat(roundTripError(Codec.ROT4, 64, 1, TOKENS, keys, keys)).isLessThan(.13);
  }

  @Test
  void encodingRefusesWhatItCannotHoldAndSaysWhere() {
    PageEncoder encoder = new PageEncoder(new PageLayout(Codec.ROT4, Codec.ROT4, 2, 64));
    UnsafeBuffer page = new UnsafeBuffer(new byte[1 << 16]);
    PageIdentity identity = new PageIdentity(MODEL, 0, 0, TOKENS);
    for (float bad : new float[] {Float.NaN, Float.POSITIVE_INFINITY, 4097f, -1e30f}) {
      float[] values = new float[TOKENS * 128];
      values[3 * 128 + 64 + 7] = bad;
      assertThatThrownBy(() -> encoder.encode(identity, new float[TOKENS * 128], values, page, 0))
          .isInstanceOf(KvtierException.class)
          .hasMessageContaining("values[token 3][head 1][7] is " + bad)
          .hasMessageContaining("4096");
    }
  }

  /** The bytes of version 1, for ever: whoever changes them makes a new version. */
  @Test
  void goldenBytes() {
    PageLayout layout = new PageLayout(Codec.ROT4, Codec.ROT4, 2, 64);
    byte[] page = new byte[layout.pageLength()];
    float[] keys = ramp(TOKENS * 128, 37);
    float[] values = ramp(TOKENS * 128, 101);
    new PageEncoder(layout)
        .encode(new PageIdentity(MODEL, 5, 640, TOKENS), keys, values, new UnsafeBuffer(page), 0);
    assertThat(HexFormat.of().formatHex(page, 0, 64)).isEqualTo(GOLDEN_HEADER);
    CRC32C crc = new CRC32C();
    crc.update(page);
    assertThat(Long.toHexString(crc.getValue())).isEqualTo(GOLDEN_PAGE_CRC);
  }

  private static final String GOLDEN_HEADER =
      "4b565047010002020001000000250000050002004000400080020000000000000123456789abcdef"
          + "000000000000002a0000000000000000000000002cdbf5af";
  private static final String GOLDEN_PAGE_CRC = "db73af38";

  /**
   * Sawtooth without any library's randomness, so that other implementations can make it too: ((i x
   * step) mod 256 - 128) / 32.
   */
  private static float[] ramp(int length, int step) {
    float[] x = new float[length];
    for (int i = 0; i < length; i++) {
      x[i] = ((i * step) % 256 - 128) / 32f;
    }
    return x;
  }

  @Test
  void encodingIsDeterministic() {
    PageLayout layout = new PageLayout(Codec.ROT4, Codec.ROT4, 1, 80);
    float[] rows = gaussian(11, TOKENS * 80, 1);
    PageIdentity identity = new PageIdentity(MODEL, 0, 0, 33);
    byte[] first = new byte[layout.pageLength()];
    byte[] second = new byte[layout.pageLength() + 128];
    java.util.Arrays.fill(second, (byte) 0xFF);
    PageEncoder encoder = new PageEncoder(layout);
    encoder.encode(identity, rows, rows, new UnsafeBuffer(first), 0);
    encoder.encode(identity, rows, rows, new UnsafeBuffer(second), 64);
    assertThat(java.util.Arrays.copyOfRange(second, 64, 64 + first.length)).isEqualTo(first);
  }

  /** Relative error in norm of the worse of keys and values. */
  static double roundTripError(
      Codec codec, int headDim, int kvHeads, int tokens, float[] keys, float[] values) {
    PageLayout layout = new PageLayout(codec, codec, kvHeads, headDim);
    UnsafeBuffer page = new UnsafeBuffer(new byte[layout.pageLength()]);
    new PageEncoder(layout).encode(new PageIdentity(MODEL, 1, 64, tokens), keys, values, page, 0);
    assertThat(Pages.verify(page, 0, layout.pageLength())).isEqualTo(Pages.Flaw.NONE);
    int stride = kvHeads * headDim;
    float[] decodedKeys = new float[tokens * stride];
    float[] decodedValues = new float[tokens * stride];
    PageDecoder decoder = new PageDecoder(layout);
    for (int head = 0; head < kvHeads; head++) {
      decoder.keys(page, 0, head, tokens, decodedKeys, head * headDim, stride);
      decoder.values(page, 0, head, tokens, decodedValues, head * headDim, stride);
    }
    return Math.max(
        error(keys, decodedKeys, tokens * stride), error(values, decodedValues, tokens * stride));
  }

  private static double error(float[] expected, float[] actual, int length) {
    double difference = 0;
    double norm = 0;
    for (int i = 0; i < length; i++) {
      difference += Math.pow(expected[i] - actual[i], 2);
      norm += Math.pow(expected[i], 2);
    }
    return norm == 0 ? Math.sqrt(difference) : Math.sqrt(difference / norm);
  }

  static float[] gaussian(long seed, int length, double deviation) {
    SplittableRandom random = new SplittableRandom(seed);
    float[] x = new float[length];
    for (int i = 0; i < length; i++) {
      x[i] = (float) (random.nextGaussian() * deviation);
    }
    return x;
  }
}
