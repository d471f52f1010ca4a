package io.kvtier.codec;

import static io.kvtier.page.PageLayout.TOKENS;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.kvtier.KvtierException;
import io.kvtier.page.Codec;
import io.kvtier.page.Fingerprint;
import io.kvtier.page.PageIdentity;
import io.kvtier.page.PageLayout;
import io.kvtier.page.Section;
import java.util.Arrays;
import org.agrona.concurrent.UnsafeBuffer;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class CodedRowsTest {
  private static final int CODES = Section.set(Section.K_FINE, Section.V_CODES, Section.V_SCALES);

  @ParameterizedTest
  @CsvSource({
    "ROT4, ROT4, 80",
    "ROT8, ROT8, 80",
    "ROT3, ROT2, 128",
    "ROT1, ROT1, 48",
    "AFFINE4, AFFINE2, 96",
    "AFFINE1, ROT3, 256",
    "RAW16, AFFINE4, 144"
  })
  void rowsOfSectionsInTwoPlacesAreThePages(Codec keyCodec, Codec valueCodec, int headDim) {
    PageLayout layout = new PageLayout(keyCodec, valueCodec, 2, headDim);
    UnsafeBuffer page = new UnsafeBuffer(new byte[layout.pageLength()]);
    float[] keys = CodecSamples.GAUSSIAN.rows(1, 2 * headDim);
    float[] values = CodecSamples.GAUSSIAN.rows(2, 2 * headDim);
    PageIdentity identity = new PageIdentity(new Fingerprint(1, 2), 0, 0, TOKENS);
    new PageEncoder(layout).encode(identity, keys, values, page, 0);
    UnsafeBuffer sketch = cut(page, layout, layout.sections() & ~CODES, 5);
    UnsafeBuffer codes = cut(page, layout, layout.sections() & CODES, 3);
    PageDecoder decoder = new PageDecoder(layout);
    float[] expectedKeys = new float[TOKENS * headDim];
    float[] expectedValues = new float[TOKENS * headDim];
    decoder.keys(page, 0, 1, TOKENS, expectedKeys, 0, headDim);
    decoder.values(page, 0, 1, TOKENS, expectedValues, 0, headDim);
    CodedRows rows = new CodedRows(layout, ~CODES, CODES);
    float[] row = new float[headDim + 2];
    for (int t = TOKENS - 1; t >= 0; t--) {
      rows.key(sketch, 5, codes, 3, t, row, 1);
      assertThat(Arrays.copyOfRange(row, 1, 1 + headDim)).isEqualTo(rowOf(expectedKeys, t));
      rows.value(sketch, 5, codes, 3, t, row, 1);
      assertThat(Arrays.copyOfRange(row, 1, 1 + headDim)).isEqualTo(rowOf(expectedValues, t));
    }
  }

  private static float[] rowOf(float[] rows, int token) {
    int headDim = rows.length / TOKENS;
    return Arrays.copyOfRange(rows, token * headDim, (token + 1) * headDim);
  }

  /** Head 1's sections of a set, end to end, from {@code at} on. */
  private static UnsafeBuffer cut(UnsafeBuffer page, PageLayout layout, int set, int at) {
    UnsafeBuffer cut = new UnsafeBuffer(new byte[at + layout.lengthOf(set)]);
    for (Section section : Section.values()) {
      if ((set & section.bit()) != 0) {
        int to = at + layout.offsetIn(set, section);
        cut.putBytes(to, page, layout.offset(1, section), layout.length(section));
      }
    }
    return cut;
  }

  @Test
  void aLayoutWithSectionsInNeitherPlaceIsRefused() {
    PageLayout layout = new PageLayout(Codec.ROT4, Codec.AFFINE4, 1, 64);
    assertThatThrownBy(() -> new CodedRows(layout, Section.K_SIGN.bit(), CODES))
        .isInstanceOf(KvtierException.class)
        .hasMessageContaining("neither");
  }
}
