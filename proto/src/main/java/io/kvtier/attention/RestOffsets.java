package io.kvtier.attention;

import io.kvtier.page.PageLayout;
import io.kvtier.page.Residence;
import io.kvtier.page.Section;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;

/**
 * Where the sections of one KV head lie that say what four bits leave (rot8), in bytes from one
 * address: that of a slot of codes, or of one token's row, in which the token is number 0.
 *
 * @param headDim a multiple of 16
 * @param keys rows of codes, one a token
 * @param keySteps one fp16 a token
 * @param values rows of codes, one a token
 * @param valueSteps one fp16 a token
 */
public record RestOffsets(int headDim, int keys, int keySteps, int values, int valueSteps) {
  private static final ValueLayout.OfShort SHORT =
      ValueLayout.JAVA_SHORT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

  /** Offsets in a slot that holds a set of sections laid end to end. */
  public static RestOffsets inSlot(PageLayout layout, int codesSet) {
    return new RestOffsets(
        layout.headDim(),
        layout.offsetIn(codesSet, Section.K_REST),
        layout.offsetIn(codesSet, Section.K_REST_STEPS),
        layout.offsetIn(codesSet, Section.V_REST),
        layout.offsetIn(codesSet, Section.V_REST_STEPS));
  }

  /** Offsets in one token's row of {@link Residence#finer}. */
  public static RestOffsets inRow(PageLayout layout) {
    int headDim = layout.headDim();
    int half = headDim / 2 + Short.BYTES;
    return new RestOffsets(headDim, 0, headDim / 2, half, half + headDim / 2);
  }

  /** Adds to a token's scores, query g's at {@code scoresAt + g x stride}, what its key adds. */
  public void addScores(
      Kernels kernels,
      GroupQuery query,
      long address,
      int token,
      Scratch scratch,
      float[] scores,
      int scoresAt,
      int stride) {
    long codes = address + keys + (long) token * headDim / 2;
    float step = half(address + keySteps, token);
    kernels.addRestScores(query, codes, step, scratch, scores, scoresAt, stride);
  }

  /** Adds what a token's value adds to rotated accumulators, by weights {@code [group][64]}. */
  public void addValues(
      Kernels kernels,
      int group,
      long address,
      int token,
      float[] weights,
      int weightsAt,
      Scratch scratch,
      float[] sums) {
    long codes = address + values + (long) token * headDim / 2;
    float step = half(address + valueSteps, token);
    kernels.addRest(headDim, group, codes, step, weights, weightsAt, scratch, sums);
  }

  private static float half(long address, int token) {
    return Float.float16ToFloat(OffHeap.ALL.get(SHORT, address + (long) Short.BYTES * token));
  }
}
