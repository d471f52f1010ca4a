package io.kvtier.gpuworker.tornado;

import static org.assertj.core.api.Assertions.assertThat;

import io.kvtier.gpuworker.core.HeadPolicy;
import io.kvtier.gpuworker.device.AttentionDevice;
import io.kvtier.gpuworker.device.DeviceSlot;
import java.util.SplittableRandom;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

/** Rows that stay in a lane from step to step. */
class RowCopyTest {
  private static final TestLanes LANES = new TestLanes();
  private static final HeadPolicy SPARSE = HeadPolicy.sparse(100, 200, .01f);
  private static final int TOKENS = 2000;

  @BeforeAll
  static void start() {
    LANES.start(1);
  }

  @AfterAll
  static void stop() {
    LANES.close();
  }

  private static float[] query(long seed) {
    return CodedHead.gaussian(new SplittableRandom(seed), 8 * 64, 1.2);
  }

  private static Filled layer(AttentionDevice device) {
    return Filled.with(device, Filled.shape(Float.BYTES), TOKENS, 1, SPARSE);
  }

  private static DeviceSlot slot(Filled layer) {
    return layer.device.memory().allocate(2 * SPARSE.tokensMax() * layer.rowLength());
  }

  /** What the host has of them may be lost from the third step on: they were sent in the second. */
  @Test
  void rowsThatTheLaneHasAreNotSentAgain() {
    try (AttentionDevice device = LANES.device(64 << 20)) {
      Filled layer = layer(device);
      DeviceSlot slot = slot(layer);
      float[] first = layer.attend(SPARSE, query(1), slot, true);
      long used = LANES.first().arena.bytesUsed();
      assertThat(layer.attend(SPARSE, query(1), slot, false)).isEqualTo(first);
      assertThat(LANES.first().arena.bytesUsed()).isGreaterThan(used);
      slot.buffer().setMemory(0, slot.length(), (byte) 0x5a);
      assertThat(layer.attend(SPARSE, query(1), slot, false)).isEqualTo(first);
      slot.release();
      assertThat(LANES.first().arena.bytesUsed()).isEqualTo(used);
      var _ = layer.layer.release();
    }
  }

  /** Other tokens' rows in the same places: each step's own are used, to the bit. */
  @Test
  void rowsOfOtherTokensAreSentToWhereTheOldOnesAre() {
    long seed = System.nanoTime();
    System.out.println("RowCopyTest seed " + seed);
    SplittableRandom random = new SplittableRandom(seed);
    try (AttentionDevice device = LANES.device(64 << 20)) {
      Filled layer = layer(device);
      DeviceSlot slot = slot(layer);
      float[][] queries = {query(random.nextLong()), query(random.nextLong())};
      for (int step = 0; step < 12; step++) {
        float[] query = queries[random.nextInt(2)];
        float[] expected = layer.attend(SPARSE, query);
        assertThat(layer.attend(SPARSE, query, slot, true)).isEqualTo(expected);
      }
      slot.release();
      var _ = layer.layer.release();
    }
  }

  /**
   * A row that the lane has, and then another token's in its place, in one batch: the first one is
   * attended to all the same, and so it is where its place is written to twice.
   */
  @Test
  void aRowDoesNotLoseItsPlaceToOneOfItsBatch() {
    try (AttentionDevice device = LANES.device(64 << 20)) {
      Filled layer = layer(device);
      DeviceSlot slot = slot(layer);
      float[] expected = layer.attend(SPARSE, query(1));
      for (int step = 0; step < 3; step++) {
        assertThat(layer.attend(SPARSE, query(1), slot, true)).isEqualTo(expected);
      }
      DeviceSlot empty = slot(layer);
      for (int step = 0; step < 3; step++) {
        assertThat(layer.attendInOnePlace(SPARSE, query(1), slot)).isEqualTo(expected);
        assertThat(layer.attendInOnePlace(SPARSE, query(1), empty)).isEqualTo(expected);
      }
      empty.release();
      slot.release();
      var _ = layer.layer.release();
    }
  }

  /** A lane that is nearly full keeps no rows, and attends all the same. */
  @Test
  void aLaneThatIsNearlyFullKeepsNone() {
    try (AttentionDevice device = LANES.device(64 << 20)) {
      Filled layer = layer(device);
      DeviceSlot slot = slot(layer);
      float[] first = layer.attend(SPARSE, query(1), slot, true);
      try (var _ = LANES.filledUpTo(1 << 20)) {
        long used = LANES.first().arena.bytesUsed();
        assertThat(layer.attend(SPARSE, query(1), slot, false)).isEqualTo(first);
        assertThat(LANES.first().arena.bytesUsed()).isEqualTo(used);
      }
      slot.release();
      var _ = layer.layer.release();
    }
  }
}
