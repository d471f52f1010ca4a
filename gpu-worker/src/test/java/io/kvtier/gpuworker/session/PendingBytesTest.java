package io.kvtier.gpuworker.session;

import static org.assertj.core.api.Assertions.assertThat;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** How sessions share what may wait to be stored. */
@Timeout(30)
class PendingBytesTest {
  private static final int MAX = 2560;

  private final PendingBytes pending = new PendingBytes(MAX);

  /** What a session may always have, as long as not too many have as much. */
  private static final int LITTLE = 10;

  private static boolean takesNow(PendingBytes.Share share, long bytes) {
    return share.take(bytes, System.nanoTime());
  }

  /** As much as a session can take in steps of one byte. */
  private static int fill(PendingBytes.Share share) {
    int taken = 0;
    while (takesNow(share, 1)) {
      taken++;
    }
    return taken;
  }

  @Test
  void whoHasMuchFillsHalfAndTheRestIsForThoseThatHaveLittle() {
    PendingBytes.Share first = pending.newShare();
    assertThat(fill(first)).isEqualTo(MAX / 2);
    for (int i = 0; i < MAX / 2 / LITTLE; i++) {
      assertThat(fill(pending.newShare())).as("session %d", i).isEqualTo(LITTLE);
    }
    assertThat(pending.bytes()).isEqualTo(MAX);
    assertThat(fill(pending.newShare())).as("one too many").isZero();
    first.give(1);
    assertThat(fill(first)).as("beyond half").isZero();
    assertThat(fill(pending.newShare())).isEqualTo(1);
  }

  @Test
  void whatIsMoreThanTheBoundGoesAlone() {
    PendingBytes.Share large = pending.newShare();
    PendingBytes.Share small = pending.newShare();
    small.add(1);
    assertThat(takesNow(large, 2 * MAX)).isFalse();
    small.give(1);
    assertThat(takesNow(large, 2 * MAX)).isTrue();
    assertThat(takesNow(small, 1)).isFalse();
  }

  @Test
  void whoWaitsGoesOnOnceEnoughIsGivenBack() throws Exception {
    PendingBytes.Share share = pending.newShare();
    assertThat(takesNow(share, MAX / 2)).isTrue();
    Thread waiting =
        Thread.ofVirtual()
            .start(() -> assertThat(share.take(100, System.nanoTime() + 20_000_000_000L)).isTrue());
    share.give(100);
    waiting.join();
    assertThat(pending.bytes()).isEqualTo(MAX / 2);
    assertThat(share.refusal(500))
        .contains("1280 bytes", "1280 of them", "500 more", "at most 1280", "(2560 for");
  }
}
