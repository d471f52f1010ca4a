package io.kvtier.gpuworker.cpu;

import static io.kvtier.page.PageLayout.TOKENS;
import static java.nio.ByteOrder.LITTLE_ENDIAN;

import io.kvtier.codec.RawRows;
import io.kvtier.gpuworker.core.Candidates;
import io.kvtier.page.PageLayout;
import java.util.concurrent.atomic.AtomicInteger;
import org.agrona.BufferUtil;
import org.agrona.concurrent.UnsafeBuffer;

/**
 * What a pass writes between its halves, for one KV head: the sketch's weights of every paged
 * token. The largest thing a pass needs (2 bytes a token and q head), so it is lent for one query
 * at a time by {@link Workshop}. One pass at a time; its tasks write different ranges.
 */
final class PassMemory {
  /**
   * {@code [pages][group][64]}, bf16: e^(sketch score - the range's reference). Off-heap and at a
   * multiple of 64: no vector lies across two cache lines, and memory can be asked for.
   */
  private UnsafeBuffer weights = new UnsafeBuffer(0, 0);

  /**
   * {@code [pages][group]}: a page's weights added up, those of tokens attended otherwise left out.
   */
  float[] pageTotals = new float[0];

  /** {@code [pages][group]}: scores of the pages' mean keys. */
  float[] meanScores = new float[0];

  /** {@code [ranges][group]}: what a range's weights are relative to. */
  float[] references = new float[0];

  /** {@code [ranges][group]}: a range's weights added up. */
  double[] rangeTotals = new double[0];

  /** {@code [ranges][group]}: what turns a weight into a share of the attention, over the group. */
  float[] shares = new float[0];

  /** {@code [ranges]}. */
  Candidates[] candidates = new Candidates[0];

  /** No token of smaller mass is collected. */
  float floor;

  /**
   * The same, or the largest {@link Candidates#floorOfAll} of any range, as bits: masses are not
   * negative.
   */
  final AtomicInteger floorBits = new AtomicInteger();

  /** Makes ready for so many pages. */
  void reserve(int pages, int ranges, int group) {
    collectFrom(0);
    if (pageTotals.length < pages * group) {
      int room = pages + pages / 4;
      int bytes = Math.multiplyExact(room * group, Short.BYTES * TOKENS);
      weights = new UnsafeBuffer(BufferUtil.allocateDirectAligned(bytes, PageLayout.ALIGNMENT));
      pageTotals = new float[room * group];
      meanScores = new float[room * group];
    }
    if (candidates.length < ranges) {
      references = new float[ranges * group];
      rangeTotals = new double[ranges * group];
      shares = new float[ranges * group];
      candidates = new Candidates[ranges];
      for (int range = 0; range < ranges; range++) {
        candidates[range] = new Candidates();
      }
    }
  }

  /** Address of a page's weights, {@code [group][64]}. Valid until more pages are reserved. */
  long weightsOf(int page, int group) {
    return weights.addressOffset() + (long) Short.BYTES * page * group * TOKENS;
  }

  float weight(int index) {
    return RawRows.ofBf16(weights.getShort(Short.BYTES * index, LITTLE_ENDIAN));
  }

  void setWeight(int index, float weight) {
    weights.putShort(Short.BYTES * index, RawRows.toBf16(weight), LITTLE_ENDIAN);
  }

  /** Has tokens below a floor left out, for all ranges. */
  void collectFrom(float least) {
    floor = least;
    floorBits.set(Float.floatToRawIntBits(least));
  }
}
