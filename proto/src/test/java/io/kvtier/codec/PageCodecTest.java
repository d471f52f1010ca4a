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
import java.util.Arrays;
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
    "RAW16, RAW16, 64, 1, 1, .002",
    "ROT4, ROT4, 128, 8, 64, .10",
    "ROT8, ROT8, 128, 8, 64, .015",
    "ROT8, ROT4, 80, 3, 63, .10",
    "ROT4, ROT2, 80, 3, 63, .35",
    "ROT3, ROT1, 96, 2, 64, .65",
    "ROT2, AFFINE4, 64, 2, 64, .36",
    "AFFINE4, ROT4, 256, 1, 17, .11",
    "AFFINE2, RAW16, 112, 2, 64, .48",
    "RAW16, AFFINE1, 48, 5, 40, 1.8",
    "ROT1, AFFINE2, 16, 2, 33, .66"
  })
  void pagesOfAnyTwoCodecsVerifyAndComeBack(
      Codec keyCodec, Codec valueCodec, int headDim, int kvHeads, int tokens, double errorMax) {
    float[] keys = gaussian(7, tokens * kvHeads * headDim, 3);
    float[] values = gaussian(8, tokens * kvHeads * headDim, .5);
    PageLayout layout = new PageLayout(keyCodec, valueCodec, kvHeads, headDim);
    assertThat(roundTripError(layout, tokens, keys, values)).isLessThan(errorMax);
  }

  @Test
  void aConstantPageIsExactUpToItsMeansHalfPrecision() {
    float[] keys = new float[TOKENS * 64];
    Arrays.fill(keys, 3.5f);
    PageLayout layout = new PageLayout(Codec.ROT4, Codec.ROT4, 1, 64);
    assertThat(roundTripError(layout, TOKENS, keys, keys)).isZero();
    assertThat(roundTripError(layout, TOKENS, new float[TOKENS * 64], keys)).isZero();
  }

  @ParameterizedTest
  @CsvSource({"ROT4", "RAW16", "AFFINE4"})
  void encodingRefusesWhatItCannotHoldAndSaysWhere(Codec codec) {
    PageLayout layout = new PageLayout(codec, codec, 2, 64);
    UnsafeBuffer page = new UnsafeBuffer(new byte[layout.pageLength()]);
    PageIdentity identity = new PageIdentity(MODEL, 0, 0, TOKENS);
    float[] bads = {Float.NaN, Float.POSITIVE_INFINITY, Float.NEGATIVE_INFINITY, 4097f, -1e30f};
    for (boolean vectors : new boolean[] {false, true}) {
      PageEncoder encoder = new PageEncoder(layout, vectors);
      for (float bad : bads) {
        float[] good = new float[TOKENS * 128];
        Arrays.fill(good, -4096);
        float[] rows = good.clone();
        rows[3 * 128 + 64 + 7] = bad;
        String place = "[token 3][head 1][7] is " + bad + "; it must be finite and at most 4096";
        assertThatThrownBy(() -> encoder.encode(identity, good, rows, page, 0))
            .isInstanceOf(KvtierException.class)
            .hasMessageContaining("values" + place);
        assertThatThrownBy(() -> encoder.encode(identity, rows, good, page, 0))
            .isInstanceOf(KvtierException.class)
            .hasMessageContaining("keys" + place);
        assertThat(page.byteArray()).containsOnly(0);
      }
      assertThatThrownBy(
              () -> encoder.encode(identity, new float[17], new float[TOKENS * 128], page, 0))
          .hasMessageContaining("keys has 17 elements; 64 tokens need 8192");
      // Rows beyond the page's tokens are not looked at.
      float[] more = new float[TOKENS * 128];
      more[TOKENS * 128 - 1] = Float.NaN;
      encoder.encode(new PageIdentity(MODEL, 0, 0, TOKENS - 1), more, more, page, 0);
      page.setMemory(0, page.capacity(), (byte) 0);
    }
  }

  /** The bytes of version 2, for ever: whoever changes them makes a new version. */
  @ParameterizedTest
  @CsvSource({
    "ROT4, ROT4, 02020001000000250000, bcfbbae8, 9ff9b81b",
    "ROT8, ROT8, 09098001000080470000, 41741feb, 6072c50",
    "AFFINE4, AFFINE2, 060700010000001d0000, 7685bc05, d81583dc"
  })
  void goldenBytes(
      Codec keyCodec, Codec valueCodec, String codecsAndLengths, String headerCrc, String pageCrc) {
    PageLayout layout = new PageLayout(keyCodec, valueCodec, 2, 64);
    float[] keys = ramp(TOKENS * 128, 37);
    float[] values = ramp(TOKENS * 128, 101);
    for (boolean vectors : new boolean[] {false, true}) {
      byte[] page = new byte[layout.pageLength()];
      new PageEncoder(layout, vectors)
          .encode(new PageIdentity(MODEL, 5, 640, TOKENS), keys, values, new UnsafeBuffer(page), 0);
      assertThat(HexFormat.of().formatHex(page, 0, 64))
          .isEqualTo(
              "4b5650470200"
                  + codecsAndLengths
                  + "050002004000400080020000000000000123456789abcdef000000000000002a"
                  + "000000000000000000000000"
                  + headerCrc);
      CRC32C crc = new CRC32C();
      crc.update(page);
      assertThat(Long.toHexString(crc.getValue())).isEqualTo(pageCrc);
    }
  }

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
    Arrays.fill(second, (byte) 0xFF);
    PageEncoder encoder = new PageEncoder(layout);
    encoder.encode(identity, rows, rows, new UnsafeBuffer(first), 0);
    encoder.encode(identity, rows, rows, new UnsafeBuffer(second), 64);
    assertThat(Arrays.copyOfRange(second, 64, 64 + first.length)).isEqualTo(first);
  }

  /** Relative error in norm of the worse of keys and values. */
  private static double roundTripError(
      PageLayout layout, int tokens, float[] keys, float[] values) {
    int kvHeads = layout.kvHeads();
    int headDim = layout.headDim();
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
