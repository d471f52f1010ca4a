package io.kvtier.gpuworker.session;

import static org.assertj.core.api.Assertions.assertThat;

import io.kvtier.v1.HeadClass;
import io.kvtier.v1.Session;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** How sessions share the processors: steps run on virtual threads, which nobody preempts. */
@Timeout(60)
class StepFairnessTest extends SessionFixture {
  private static final int TOKENS = 2000;
  private static final int QUERIES = 64;
  private static final int TRIALS = 10;

  /** Processors that virtual threads run on. */
  private static final int CARRIERS =
      Integer.getInteger(
          "jdk.virtualThreadScheduler.parallelism", Runtime.getRuntime().availableProcessors());

  /**
   * On each processor a session is in the midst of a step of 64 queries when another one comes with
   * a step of one: it is served before any of those is done. If long steps did not give way, it
   * would wait for the end of one of them, each time; a busy machine may hold it up now and then.
   */
  @Test
  void aShortStepDoesNotWaitForTheEndOfLongOnes() throws Exception {
    Session info = info(HeadClass.HEAD_CLASS_DENSE, 0);
    WorkerSession light = filled(info, TOKENS);
    List<WorkerSession> heavy = new ArrayList<>();
    for (int i = 0; i < CARRIERS; i++) {
      heavy.add(light.fork(info));
    }
    int waited = 0;
    for (int trial = 0; trial < TRIALS; trial++) {
      waited += longStepsBefore(light, heavy, trial) == 0 ? 0 : 1;
    }
    assertThat(waited).isLessThan(TRIALS / 2);
    light.close();
    heavy.forEach(WorkerSession::close);
  }

  /** Long steps, one a processor, that end before a short one does that comes after all began. */
  private int longStepsBefore(WorkerSession light, List<WorkerSession> heavy, int trial)
      throws InterruptedException {
    float[] queries = gaussian(QUERIES * Q_ROW);
    float[] query = gaussian(Q_ROW);
    float[] rows = gaussian(QUERIES * KV_ROW);
    CountDownLatch begun = new CountDownLatch(heavy.size());
    AtomicInteger ended = new AtomicInteger();
    AtomicInteger endedBefore = new AtomicInteger();
    AtomicBoolean served = new AtomicBoolean();
    List<Thread> threads = new ArrayList<>();
    for (WorkerSession session : heavy) {
      int position = TOKENS + trial * QUERIES;
      threads.add(
          Thread.ofVirtual()
              .start(() -> {
                begun.countDown();
                StepResult result =
                    session.step(0, position, QUERIES, queries, rows, rows, NO_HINT);
                if (result.output().length == QUERIES * Q_ROW) {
                  ended.incrementAndGet();
                }
              }));
    }
    begun.await();
    threads.add(
        Thread.ofVirtual()
            .start(() -> {
              served.set(step(light, TOKENS + trial, query).output().length == Q_ROW);
              endedBefore.set(ended.get());
            }));
    for (Thread thread : threads) {
      thread.join();
    }
    assertThat(ended.get()).isEqualTo(heavy.size());
    assertThat(served.get()).isTrue();
    return endedBefore.get();
  }
}
