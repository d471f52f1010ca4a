package io.kvtier.coordinator.raft;

import static io.kvtier.coordinator.raft.LeaderProgress.STUCK_NS;
import static org.assertj.core.api.Assertions.assertThat;

import io.kvtier.coordinator.raft.LeaderProgress.Standing;
import org.junit.jupiter.api.Test;

class LeaderProgressTest {
  private final LeaderProgress progress = new LeaderProgress();

  private static Standing leader(boolean ready, long term, long committed, long last) {
    return new Standing(true, ready, term, committed, last);
  }

  @Test
  void aLeaderThatIsNotReadyInTimeIsStuckWhateverIsAgreedOn() {
    assertThat(progress.stuck(leader(false, 1, 0, 9), 0)).isFalse();
    assertThat(progress.stuck(leader(false, 1, 5, 9), STUCK_NS - 1)).isFalse();
    assertThat(progress.stuck(leader(false, 1, 9, 9), STUCK_NS)).isTrue();
    assertThat(progress.stuck(leader(false, 1, 9, 9), 2 * STUCK_NS - 1)).isFalse();
    assertThat(progress.stuck(leader(false, 1, 9, 9), 2 * STUCK_NS)).isTrue();
  }

  @Test
  void aLeaderThatIsReadyIsStuckWhenNothingMoreIsAgreedOn() {
    assertThat(progress.stuck(leader(true, 1, 5, 9), 0)).isFalse();
    assertThat(progress.stuck(leader(true, 1, 6, 9), STUCK_NS)).isFalse();
    assertThat(progress.stuck(leader(true, 1, 6, 20), 2 * STUCK_NS - 1)).isFalse();
    assertThat(progress.stuck(leader(true, 1, 6, 20), 2 * STUCK_NS)).isTrue();
  }

  @Test
  void whoHasNothingToAgreeOnOrDoesNotLeadIsNotStuck() {
    for (long nowNs = 0; nowNs < 10 * STUCK_NS; nowNs += STUCK_NS) {
      assertThat(progress.stuck(leader(true, 1, 9, 9), nowNs)).isFalse();
    }
    for (long nowNs = 10 * STUCK_NS; nowNs < 20 * STUCK_NS; nowNs += STUCK_NS) {
      assertThat(progress.stuck(new Standing(false, false, 1, 5, 9), nowNs)).isFalse();
    }
  }

  @Test
  void anotherTermBeginsAnew() {
    assertThat(progress.stuck(leader(false, 1, 5, 9), 0)).isFalse();
    assertThat(progress.stuck(leader(false, 3, 5, 9), STUCK_NS)).isFalse();
    assertThat(progress.stuck(leader(false, 3, 5, 9), 2 * STUCK_NS)).isTrue();
  }
}
