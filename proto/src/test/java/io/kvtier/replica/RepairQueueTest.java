package io.kvtier.replica;

import static org.assertj.core.api.Assertions.assertThat;

import io.kvtier.page.PageKey;
import io.kvtier.replica.RepairQueue.Repair;
import io.kvtier.replica.ReplicaCounts.Count;
import java.time.Duration;
import java.util.List;
import org.junit.jupiter.api.Test;

class RepairQueueTest {
  private static final long DELAY_NS = Duration.ofMillis(10).toNanos();
  private static final long NOW = Long.MAX_VALUE - 5; // The clock overflows during the test.

  private final ReplicaCounts counts = new ReplicaCounts();
  private final RepairQueue queue =
      new RepairQueue(
          new ReplicaConfig(
              2,
              1,
              Duration.ofMillis(10),
              Duration.ofMillis(40),
              5,
              4,
              8,
              0,
              3,
              3,
              0,
              Duration.ofNanos(DELAY_NS)),
          counts);

  private static PageKey key(int i) {
    return new PageKey(1, 2, 3, i);
  }

  @Test
  void eachPageWaitsOnceAndWhatIsTooMuchIsDroppedAndCounted() {
    for (int i = 0; i < 5; i++) {
      queue.offer(key(i), NOW);
      queue.offer(key(0), NOW);
    }
    assertThat(queue.size()).isEqualTo(3);
    assertThat(counts.get(Count.REPAIRS_QUEUED)).isEqualTo(5);
    assertThat(counts.get(Count.REPAIRS_DROPPED)).isEqualTo(2);
    assertThat(queue.poll(NOW)).isEqualTo(new Repair(key(0), 0));
    queue.forget(List.of(key(1)));
    assertThat(queue.poll(NOW)).isEqualTo(new Repair(key(2), 0));
    assertThat(queue.poll(NOW)).isNull();
    assertThat(queue.untilDueNs(NOW)).isEqualTo(Long.MAX_VALUE);
  }

  @Test
  void aFailedRepairIsDueLaterEachTimeAndAtLastDropped() {
    queue.offer(key(0), NOW);
    long now = NOW;
    for (long delayNs : new long[] {DELAY_NS, 2 * DELAY_NS}) {
      Repair repair = java.util.Objects.requireNonNull(queue.poll(now));
      queue.failed(repair, now);
      assertThat(queue.untilDueNs(now)).isEqualTo(delayNs);
      assertThat(queue.poll(now + delayNs - 1)).isNull();
      now += delayNs;
    }
    queue.failed(java.util.Objects.requireNonNull(queue.poll(now)), now);
    assertThat(queue.size()).isZero();
    assertThat(counts.get(Count.REPAIRS_DROPPED)).isOne();
  }
}
