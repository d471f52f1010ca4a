package io.kvtier.gpuworker.cpu;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicIntegerArray;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

@Timeout(60)
class TeamTest {
  /** Helpers begin while the caller does something else: it waits here for one of them. */
  @Test
  void tasksBeginBesideWhatTheCallerDoesFirst() {
    try (Team team = new Team(2)) {
      CountDownLatch begun = new CountDownLatch(1);
      AtomicIntegerArray done = new AtomicIntegerArray(20);
      team.run(
          done.length(),
          i -> {
            done.incrementAndGet(i);
            begun.countDown();
          },
          () -> await(begun));
      for (int i = 0; i < done.length(); i++) {
        assertThat(done.get(i)).isEqualTo(1);
      }
    }
  }

  @Test
  void aTeamOfOneDoesBoth() {
    try (Team team = new Team(1)) {
      AtomicInteger done = new AtomicInteger();
      team.run(3, i -> done.addAndGet(10), done::incrementAndGet);
      assertThat(done.get()).isEqualTo(31);
    }
  }

  /** What is done first may fail: tasks that have begun end before the caller goes on. */
  @Test
  void aFailureIsToldOnceNoTaskRunsAnyMore() {
    try (Team team = new Team(2)) {
      for (int round = 0; round < 200; round++) {
        AtomicInteger running = new AtomicInteger();
        assertThatThrownBy(() ->
                team.run(
                    50,
                    i -> {
                      running.incrementAndGet();
                      Thread.onSpinWait();
                      running.decrementAndGet();
                    },
                    () -> {
                      throw new IllegalStateException("first");
                    }))
            .hasMessage("first");
        assertThat(running.get()).isZero();
      }
    }
  }

  private static void await(CountDownLatch latch) {
    try {
      latch.await();
    } catch (InterruptedException e) {
      throw new IllegalStateException(e);
    }
  }
}
