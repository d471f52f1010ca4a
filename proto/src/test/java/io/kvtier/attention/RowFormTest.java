package io.kvtier.attention;

import static io.kvtier.page.PageLayout.TOKENS;
import static java.nio.ByteOrder.LITTLE_ENDIAN;
import static org.assertj.core.api.Assertions.assertThat;

import io.kvtier.page.Codec;
import io.kvtier.page.PageLayout;
import io.kvtier.page.Residence;
import io.kvtier.page.Section;
import io.kvtier.page.TokenRows;
import java.nio.ByteBuffer;
import java.util.SplittableRandom;
import org.agrona.BufferUtil;
import org.agrona.concurrent.UnsafeBuffer;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

final class RowFormTest {
  /** A joined row scores as its page does, and goes back to what was fetched, byte for byte. */
  @ParameterizedTest
  @CsvSource({
    "16, TWO_PLANES",
    "64, TWO_PLANES",
    "64, ONE_PLANE",
    "80, ONE_PLANE",
    "128, TWO_PLANES",
    "128, ONE_PLANE",
    "256, TWO_PLANES",
    "256, ONE_PLANE"
  })
  void aJoinedRowIsItsTokenOfThePage(int headDim, Residence residence) {
    PageLayout layout = new PageLayout(Codec.ROT4, Codec.ROT4, 1, headDim);
    HeadOffsets at = HeadOffsets.inPage(layout, 0);
    UnsafeBuffer page = aligned(layout.pageLength());
    SplittableRandom random = new SplittableRandom(headDim);
    for (int i = 0; i < page.capacity(); i++) {
      page.putByte(i, (byte) random.nextInt());
    }
    for (Section section : new Section[] {Section.K_SCALES, Section.K_MEAN, Section.V_SCALES}) {
      int from = layout.offset(0, section);
      for (int i = 0; i < layout.length(section); i += 2) {
        short half = Float.floatToFloat16((float) random.nextDouble(.5, 2));
        page.putShort(from + i, half, LITTLE_ENDIAN);
      }
    }
    int group = 2;
    GroupQuery query = new GroupQuery(group, headDim);
    float[] q = new float[group * headDim];
    for (int i = 0; i < q.length; i++) {
      q[i] = (float) random.nextGaussian();
    }
    query.load(q, 0, true, Kernels.scalar());
    Scratch scratch = new Scratch(group, headDim);
    float[] ofPage = new float[group * TOKENS];
    long address = page.addressOffset();
    Kernels.scalar().exactScores(query, at, address, address, -1L, scratch, ofPage);
    float[] means = new float[group];
    UnsafeBuffer unused = aligned(group * TOKENS * Short.BYTES);
    float[] totals = new float[group];
    Kernels.scalar()
        .sketchWeights(
            query,
            at,
            new long[] {address},
            0,
            1,
            2,
            scratch,
            new float[group],
            0,
            unused.addressOffset(),
            totals,
            means,
            0);

    RowForm form = RowForm.of(layout);
    TokenRows rows = new TokenRows(layout, residence.rows());
    int fetchedAt = form.fetchedAt(residence);
    assertThat(fetchedAt + rows.length() + Short.BYTES).isEqualTo(form.bytes());
    for (int token = 0; token < TOKENS; token += 7) {
      UnsafeBuffer row = aligned(form.bytes() + 64);
      rows.takeFromPage(page, 0, 0, token, row, fetchedAt);
      form.markFetched(row, 0);
      byte[] fetched = new byte[rows.length()];
      row.getBytes(fetchedAt, fetched);
      assertThat(copied(form, row, residence)).isEqualTo(fetched);

      form.join(at, address, residence.planes(), token, row.addressOffset(), scratch);
      assertThat(form.isFetched(row.addressOffset())).isFalse();
      assertThat(copied(form, row, residence)).isEqualTo(fetched);
      float[] scores = new float[group];
      float[] valueScale = new float[1];
      Kernels.scalar()
          .chosenScores(
              query,
              form,
              new long[] {row.addressOffset()},
              new int[] {token},
              0,
              1,
              means,
              scratch,
              scores,
              1,
              valueScale);
      for (int g = 0; g < group; g++) {
        assertThat(scores[g]).isEqualTo(ofPage[g * TOKENS + token]);
      }
      int scaleAt = layout.offset(0, Section.V_SCALES) + token * Short.BYTES;
      assertThat(valueScale[0])
          .isEqualTo(Float.float16ToFloat(page.getShort(scaleAt, LITTLE_ENDIAN)));
    }
  }

  private static byte[] copied(RowForm form, UnsafeBuffer row, Residence residence) {
    byte[] copy = new byte[form.bytes()];
    form.copyFetched(row.addressOffset(), residence.rows(), new UnsafeBuffer(copy), 0);
    return java.util.Arrays.copyOf(copy, form.bytes() - Short.BYTES - form.fetchedAt(residence));
  }

  private static UnsafeBuffer aligned(int length) {
    ByteBuffer memory = BufferUtil.allocateDirectAligned(length, 64);
    return new UnsafeBuffer(memory);
  }
}
