package io.kvtier.gpuworker.session;

import static org.assertj.core.api.Assertions.assertThat;

import io.kvtier.gpuworker.trace.StepListener;
import io.kvtier.gpuworker.trace.TraceStep;
import io.kvtier.v1.HeadClass;
import io.kvtier.v1.HeadPlan;
import io.kvtier.v1.Plan;
import io.kvtier.v1.Session;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** Hints of long contexts, and hints that meet a slow tier or their own step. */
@Timeout(60)
class PrefetchTest extends SessionFixture {
  private static final long TIMEOUT_NS = TimeUnit.MILLISECONDS.toNanos(200);

  /** Runs work at once, but what it is told to run otherwise. */
  private static final class Told extends EndlessExecutor {
    /** Ways to run tasks to come, the next one's first. */
    final List<Way> ways = new ArrayList<>();

    /** A way to run a task. */
    interface Way {
      void run(Runnable task);
    }

    @Override
    public void execute(Runnable task) {
      if (ways.isEmpty()) {
        task.run();
      } else {
        ways.removeFirst().run(task);
      }
    }
  }

  /** Keeps what it hears. */
  private static final class Heard implements StepListener {
    final List<TraceStep> steps = new CopyOnWriteArrayList<>();

    @Override
    public long sinceStartNs(long nowNs) {
      return 0;
    }

    @Override
    public void stepped(TraceStep step) {
      steps.add(step);
    }
  }

  private final Told told = new Told();
  private final Heard heard = new Heard();
  private final float[] row = new float[KV_ROW];

  /** Layer 0 dense, so that nothing but a hint's rows is fetched there; layer 1 sparse. */
  private static Session halfDense() {
    Session info = info(HeadClass.HEAD_CLASS_SPARSE, 0).toBuilder().setTokensMax(40_000).build();
    Plan.Builder plan = info.getPlan().toBuilder().setHotSetBytes(4 << 20);
    HeadPlan dense = HeadPlan.newBuilder().setHeadClass(HeadClass.HEAD_CLASS_DENSE).build();
    plan.setHeads(0, dense).setHeads(1, dense.toBuilder().setKvHead(1));
    return info.toBuilder().setPlan(plan).build();
  }

  /** A session of so many thousands of tokens. */
  private WorkerSession filled(int thousands) {
    return thousands(halfDense(), thousands);
  }

  private WorkerSession thousands(Session info, int thousands) {
    SessionLimits limits = new SessionLimits(1 << 20, TIMEOUT_NS);
    WorkerSession session =
        SessionOpening.open(
            info,
            Prefix.NONE,
            new SessionHost(device, tier, told, limits, new PendingBytes(16 << 20), heard));
    for (int layer = 0; layer < 2; layer++) {
      for (int i = 0; i < thousands; i++) {
        float[] rows = gaussian(1000 * KV_ROW);
        assertThat(session.append(layer, 1000 * i, 1000, rows, rows)).isEqualTo(1000 * (i + 1));
      }
    }
    assertThat(session.finish(1000 * thousands, (i, t, c, f, d) -> i.getPlan())).isNotNull();
    return session;
  }

  /** A step of layer 0 that brings a hint. */
  private void hint(WorkerSession session, int position, float[] hint) {
    assertThat(session.step(0, position, 1, gaussian(Q_ROW), row, row, hint).fetched()).isZero();
  }

  private StepResult step1(WorkerSession session, int position, float[] query) {
    return session.step(1, position, 1, query, row, row, NO_HINT);
  }

  private static void await(CountDownLatch latch) {
    try {
      assertThat(latch.await(30, TimeUnit.SECONDS)).isTrue();
    } catch (InterruptedException e) {
      throw new AssertionError(e);
    }
  }

  /**
   * What does not come in time the step fetches itself, to the same bits, and no later step waits
   * for it. Until it has come, hints are dropped; then they are taken again.
   */
  @Test
  void rowsThatComeTooLateAreWaitedForOnce() throws Exception {
    WorkerSession session = filled(2);
    WorkerSession control = session.fork(halfDense());
    CountDownLatch stuck = new CountDownLatch(1);
    CountDownLatch go = new CountDownLatch(1);
    List<Thread> threads = new ArrayList<>();
    told.ways.add(choice -> threads.add(Thread.ofPlatform().start(choice)));
    told.ways.add(fetch -> {
      threads.add(
          Thread.ofPlatform()
              .start(() -> {
                await(go);
                fetch.run();
              }));
      stuck.countDown();
    });
    float[] next = gaussian(Q_ROW);
    hint(session, 2000, next);
    await(stuck);
    StepResult first = step1(session, 2000, next);
    assertThat(first.output()).isEqualTo(step1(control, 2000, next).output());
    assertThat(first.hit()).isZero();
    assertThat(first.fetched()).isEqualTo(first.selected()).isPositive();
    assertThat(first.bytesWasted()).isZero();
    assertThat(first.unhiddenNs()).isGreaterThanOrEqualTo(TIMEOUT_NS);
    StepResult second = step1(session, 2001, next);
    assertThat(second.output()).isEqualTo(step1(control, 2001, next).output());
    assertThat(second.unhiddenNs()).isLessThan(TIMEOUT_NS);
    hint(session, 2001, gaussian(Q_ROW));
    int before = tier.rowsRead.get();
    hint(session, 2002, gaussian(Q_ROW));
    assertThat(tier.rowsRead.get()).isEqualTo(before);
    go.countDown();
    for (Thread thread : threads) {
      thread.join();
    }
    assertThat(tier.rowsRead.get()).isGreaterThan(before);
    StepResult third = step1(session, 2002, next);
    assertThat(third.output()).isEqualTo(step1(control, 2002, next).output());
    assertThat(third.hit()).isGreaterThan(third.selected() * 9 / 10);
    // However many are chosen now, they came for a step that had to fetch them itself.
    assertThat(third.prefetched()).isPositive();
    assertThat(third.bytesWasted()).isEqualTo(third.prefetched() * rowBytes());
    float[] fresh = gaussian(Q_ROW);
    hint(session, 2003, fresh);
    assertThat(step1(session, 2003, fresh).prefetched()).isPositive();
    control.close();
    session.close();
  }

  /** What comes ahead and is not chosen is wasted, whichever of the step's queries might have. */
  @Test
  void bytesOfRowsThatTheirStepDoesNotChooseAreWasted() {
    WorkerSession session = thousands(easy(), 2);
    float[] hinted = sharp();
    hint(session, 2000, hinted);
    StepResult step = step1(session, 2000, sharp());
    // Nothing else was on the device: what was found there is what came ahead.
    assertThat(step.hit()).isLessThan(step.prefetched() / 2);
    assertThat(step.bytesWasted()).isEqualTo((step.prefetched() - step.hit()) * rowBytes());
    assertThat(heard.steps.getLast().wasted()).isEqualTo(step.bytesWasted());

    // Of rows that an earlier hint brought a later step wastes none.
    hint(session, 2001, hinted);
    StepResult again = step1(session, 2001, sharp());
    assertThat(again.bytesWasted()).isLessThanOrEqualTo(again.prefetched() * rowBytes());
    assertThat(again.prefetched()).isLessThan(step.prefetched() / 4);

    float[] second = sharp();
    hint(session, 2002, second);
    float[] queries = Arrays.copyOf(sharp(), 2 * Q_ROW);
    System.arraycopy(second, 0, queries, Q_ROW, Q_ROW);
    float[] rows = new float[2 * KV_ROW];
    StepResult both = session.step(1, 2002, 2, queries, rows, rows, NO_HINT);
    assertThat(both.prefetched()).isPositive();
    assertThat(both.bytesWasted()).isLessThan(both.prefetched() * rowBytes() / 4);
    session.close();
  }

  /** Few tokens have nearly all of its mass. */
  private float[] sharp() {
    float[] query = gaussian(Q_ROW);
    for (int k = 0; k < Q_ROW; k++) {
      query[k] *= 4;
    }
    return query;
  }

  /** The fewest tokens leave no more than may be left. */
  private static Session easy() {
    Session info = halfDense();
    Plan.Builder plan = info.getPlan().toBuilder();
    plan.getHeadsBuilderList().subList(2, 4).forEach(head -> head.setResidualMass(1));
    return info.toBuilder().setPlan(plan).build();
  }

  /** A trace tells of rows that the step found on their way, and of how many it chose among. */
  @Test
  void rowsThatAreStillOnTheirWayAreLateHits() throws Exception {
    WorkerSession session = thousands(easy(), 2);
    CountDownLatch go = new CountDownLatch(1);
    CountDownLatch stuck = new CountDownLatch(1);
    List<Thread> threads = new ArrayList<>();
    told.ways.add(choice -> threads.add(Thread.ofPlatform().start(choice)));
    told.ways.add(fetch ->
        threads.add(
            Thread.ofPlatform()
                .start(() -> {
                  stuck.countDown();
                  await(go);
                  fetch.run();
                })));
    float[] next = sharp();
    hint(session, 2000, next);
    await(stuck);
    CompletableFuture<StepResult> result = new CompletableFuture<>();
    Thread step = Thread.ofPlatform().start(() -> result.complete(step1(session, 2000, next)));
    while (step.getState() != Thread.State.TIMED_WAITING) {
      Thread.onSpinWait();
    }
    go.countDown();
    StepResult served = result.get(30, TimeUnit.SECONDS);
    for (Thread thread : threads) {
      thread.join();
    }
    step.join();
    assertThat(served.late()).isEqualTo(served.hit()).isGreaterThan(served.selected() * 9 / 10);
    TraceStep late = heard.steps.getLast();
    assertThat(late.layer()).isEqualTo(1);
    assertThat(late.late()).isEqualTo(served.late());
    assertThat(late.wasted())
        .isEqualTo(served.bytesWasted())
        .isEqualTo((served.prefetched() - served.late()) * rowBytes());
    // About the least of two heads, among at least the most.
    assertThat(late.selected()).isBetween(2L * 64, 2L * 80);
    assertThat(late.candidates()).isGreaterThanOrEqualTo(2L * 128);
    StepResult punctual = step1(session, 2001, next);
    assertThat(punctual.hit()).isPositive();
    assertThat(punctual.late()).isZero();
    assertThat(heard.steps.getLast().late()).isZero();
    session.close();
  }

  /** Of a long context a hint's first head's rows are asked for before its second chooses. */
  @Test
  void aHintAsksForRowsPartByPart() {
    WorkerSession session = filled(34);
    float[] next = gaussian(Q_ROW);
    int before = tier.rowCalls.get();
    hint(session, 34_000, next);
    assertThat(tier.rowCalls.get() - before).isEqualTo(2);
    StepResult step = step1(session, 34_000, next);
    assertThat(step.prefetched()).isGreaterThan(200);
    assertThat(step.hit()).isGreaterThan(step.selected() * 9 / 10);
    session.close();
  }

  /** A step that comes while its hint chooses waits for no more than the part that is under way. */
  @Test
  void aHintLeavesToItsStepWhatIsStillToBeChosen() throws Exception {
    WorkerSession session = filled(34);
    WorkerSession control = session.fork(halfDense());
    float[] next = gaussian(Q_ROW);
    CompletableFuture<StepResult> result = new CompletableFuture<>();
    Thread step =
        Thread.ofPlatform().unstarted(() -> result.complete(step1(session, 34_000, next)));
    told.ways.add(Runnable::run);
    told.ways.add(fetch -> {
      fetch.run();
      step.start();
      while (step.getState() != Thread.State.WAITING) {
        Thread.onSpinWait();
      }
    });
    hint(session, 34_000, next);
    StepResult served = result.get(30, TimeUnit.SECONDS);
    assertThat(served.output()).isEqualTo(step1(control, 34_000, next).output());
    // One of two heads' rows.
    assertThat(served.prefetched()).isBetween(served.selected() / 4, served.selected() * 3 / 4);
    assertThat(served.fetched()).isGreaterThan(served.selected() / 4);
    control.close();
    session.close();
  }
}
