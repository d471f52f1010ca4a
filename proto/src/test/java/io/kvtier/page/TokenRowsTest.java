package io.kvtier.page;

import static io.kvtier.page.PageLayout.TOKENS;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.kvtier.KvtierException;
import java.util.Random;
import org.agrona.concurrent.UnsafeBuffer;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

final class TokenRowsTest {
  private static final int KV_HEADS = 3;

  @ParameterizedTest
  @CsvSource({
    "ROT4,ROT4,128",
    "ROT4,ROT4,80",
    "ROT3,ROT2,96",
    "RAW16,RAW16,64",
    "ROT1,AFFINE4,256"
  })
  void rowsOfAllTokensRebuildTheSections(Codec keyCodec, Codec valueCodec, int headDim) {
    PageLayout layout = new PageLayout(keyCodec, valueCodec, KV_HEADS, headDim);
    int set = TokenRows.ofTokens(layout.sections());
    TokenRows rows = new TokenRows(layout, set);
    assertThat(rows.length() * TOKENS).isEqualTo(layout.lengthOf(set));
    UnsafeBuffer page = new UnsafeBuffer(new byte[layout.pageLength()]);
    new Random(7).nextBytes(page.byteArray());
    UnsafeBuffer row = new UnsafeBuffer(new byte[rows.length()]);
    UnsafeBuffer again = new UnsafeBuffer(new byte[rows.length()]);
    for (int head = 0; head < KV_HEADS; head++) {
      UnsafeBuffer codes = new UnsafeBuffer(new byte[layout.lengthOf(set)]);
      for (int token = 0; token < TOKENS; token++) {
        rows.takeFromPage(page, 0, head, token, row, 0);
        rows.put(row, 0, token, codes, 0);
        rows.take(codes, 0, token, again, 0);
        assertThat(again).isEqualTo(row);
      }
      for (int left = set; left != 0; left &= left - 1) {
        Section section = Section.ofId(Integer.numberOfTrailingZeros(left));
        byte[] whole = new byte[layout.length(section)];
        page.getBytes(layout.offset(head, section), whole);
        byte[] rebuilt = new byte[whole.length];
        codes.getBytes(layout.offsetIn(set, section), rebuilt);
        assertThat(rebuilt).as("head %d, %s", head, section).isEqualTo(whole);
      }
    }
  }

  @Test
  void sectionsThatBelongToNoTokenAreRefused() {
    PageLayout layout = new PageLayout(Codec.ROT4, Codec.ROT4, 1, 64);
    assertThatThrownBy(() -> new TokenRows(layout, Section.set(Section.V_CODES, Section.V_MEAN)))
        .isInstanceOf(KvtierException.class)
        .hasMessageContaining("sections is 0xa0");
    assertThatThrownBy(() -> new TokenRows(layout, 0)).isInstanceOf(KvtierException.class);
    assertThatThrownBy(() -> new TokenRows(layout, Section.K_RAW.bit()))
        .isInstanceOf(KvtierException.class);
  }
}
