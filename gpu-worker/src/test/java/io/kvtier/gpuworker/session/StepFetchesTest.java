package io.kvtier.gpuworker.session;

import static org.assertj.core.api.Assertions.assertThat;

import io.kvtier.gpuworker.session.FaultyTransport.Fault;
import io.kvtier.v1.HeadClass;
import io.kvtier.v1.HeadPlan;
import io.kvtier.v1.Plan;
import io.kvtier.v1.Session;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.junit.jupiter.api.Test;

/** What steps fetch, what a hint has brought before, and what stays for later. */
class StepFetchesTest extends SessionFixture {
  /** Heads of every kind that fetches, and a hot set of so many bytes. */
  private static Session mixed(long hotSetBytes) {
    Session info = info(HeadClass.HEAD_CLASS_SPARSE, 0);
    Plan.Builder plan = info.getPlan().toBuilder().setHotSetBytes(hotSetBytes);
    plan.getHeadsBuilder(1).setSketchPlanes(1);
    plan.setHeads(
        3,
        plan.getHeads(3).toBuilder()
            .setHeadClass(HeadClass.HEAD_CLASS_STREAMED)
            .clearDominantTokensMax()
            .clearResidualMass());
    return info.toBuilder().setPlan(plan).build();
  }

  /**
   * What the arena holds, and whether a prefetch has brought it, changes what is fetched and not a
   * bit of the output. A stale row, or another token's, would.
   */
  @Test
  void outputsAreTheSameWhateverTheHotSetHolds() {
    WorkerSession none = filled(mixed(0), 1500);
    List<WorkerSession> others =
        List.of(none.fork(mixed(20_000)), none.fork(mixed(60_000)), none.fork(mixed(4 << 20)));
    for (int i = 0; i < others.size(); i++) {
      Plan plan = mixed(i == 0 ? 20_000 : i == 1 ? 60_000 : 4 << 20).getPlan();
      assertThat(others.get(i).finish(1500, (a, b, c, d, e) -> plan)).isEqualTo(plan);
    }
    float[] query = gaussian(Q_ROW);
    int hits = 0;
    for (int position = 1500; position < 1700; position++) {
      float[] drift = gaussian(Q_ROW);
      for (int i = 0; i < Q_ROW; i++) {
        query[i] = .9f * query[i] + .4f * drift[i];
      }
      float[] hint = gaussian(Q_ROW);
      for (int layer = 0; layer < 2; layer++) {
        float[] q = layer == 0 ? query : gaussian(Q_ROW);
        float[] row = gaussian(KV_ROW);
        StepResult cold = none.step(layer, position, 1, q, row, row, NO_HINT);
        for (WorkerSession other : others) {
          float[] given = position % 3 == 0 ? NO_HINT : hint;
          StepResult warm = other.step(layer, position, 1, q, row, row, given);
          assertThat(warm.output()).isEqualTo(cold.output());
          assertThat(warm.lse()).isEqualTo(cold.lse());
          assertThat(warm.selected()).isEqualTo(cold.selected());
          hits += warm.hit();
        }
        assertThat(cold.hit()).isZero();
      }
    }
    assertThat(hits).isGreaterThan(10_000);
    others.forEach(WorkerSession::close);
    none.close();
  }

  /** The bytes of a step are those of its rows and of the asking, no page of them. */
  @Test
  void aStepFetchesRowsAndNoneTwice() {
    Session info = info(HeadClass.HEAD_CLASS_SPARSE, 0);
    Session hot =
        info.toBuilder().setPlan(info.getPlan().toBuilder().setHotSetBytes(4 << 20)).build();
    WorkerSession session = filled(hot, 2000);
    float[] query = gaussian(Q_ROW);
    int before = tier.rowsRead.get();
    StepResult first = step(session, 2000, query);
    assertThat(first.fetched()).isEqualTo(first.selected()).isEqualTo(tier.rowsRead.get() - before);
    assertThat(first.bytesFetched()).isBetween(50L * first.fetched(), 110L * first.fetched());
    StepResult second = step(session, 2001, query);
    assertThat(second.hit()).isGreaterThan(200);
    assertThat(second.hit() + second.fetched()).isEqualTo(second.selected());
    assertThat(tier.rowsRead.get() - before).isEqualTo(first.fetched() + second.fetched());
    session.close();
  }

  /**
   * Of a long context the first head's rows are asked for before the second chooses: background
   * work runs at once here, so that each part's fetch is a call of its own.
   */
  @Test
  void rowsAreOnTheirWayWhileTheNextHeadChooses() {
    Session info = info(HeadClass.HEAD_CLASS_SPARSE, 0).toBuilder().setTokensMax(40_000).build();
    WorkerSession session = open(info);
    for (int layer = 0; layer < 2; layer++) {
      for (int at = 0; at < 34_000; at += 2000) {
        float[] rows = gaussian(2000 * KV_ROW);
        assertThat(session.append(layer, at, 2000, rows, rows)).isEqualTo(at + 2000);
      }
    }
    assertThat(session.finish(34_000, (i, t, c, f, d) -> i.getPlan())).isNotNull();
    int before = tier.rowCalls.get();
    StepResult result = step(session, 34_000, gaussian(Q_ROW));
    assertThat(result.fetched()).isEqualTo(result.selected()).isPositive();
    assertThat(tier.rowCalls.get() - before).isEqualTo(2);
    session.close();
  }

  /** What a hint has brought is found by the step, in the arena, and not fetched again. */
  @Test
  void aHintedStepFindsItsRows() {
    Session info = info(HeadClass.HEAD_CLASS_SPARSE, 0);
    Session hot =
        info.toBuilder().setPlan(info.getPlan().toBuilder().setHotSetBytes(4 << 20)).build();
    WorkerSession session = filled(hot, 2000);
    float[] next = gaussian(Q_ROW);
    float[] row = new float[KV_ROW];
    StepResult first = session.step(0, 2000, 1, gaussian(Q_ROW), row, row, next);
    int before = tier.rowsRead.get();
    StepResult second = session.step(1, 2000, 1, next, row, row, NO_HINT);
    assertThat(first.prefetched()).isZero();
    assertThat(second.prefetched()).isGreaterThan(200);
    // The step sees one token more than the hint did, so that its choice may differ a little.
    assertThat(second.hit()).isGreaterThan(second.selected() * 9 / 10);
    assertThat(tier.rowsRead.get() - before).isEqualTo(second.fetched());
    session.close();
  }

  /** Of a step of many queries the last one's hint is nearest to what comes next. */
  @Test
  void theLastOfManyHintsIsFollowed() {
    WorkerSession session = filled(halfDense(), 2000);
    float[] hints = gaussian(3 * Q_ROW);
    float[] rows = new float[3 * KV_ROW];
    StepResult first = session.step(0, 2000, 3, gaussian(3 * Q_ROW), rows, rows, hints);
    assertThat(first.fetched()).isZero();
    float[] last = Arrays.copyOfRange(hints, 2 * Q_ROW, 3 * Q_ROW);
    float[] row = new float[KV_ROW];
    StepResult second = session.step(1, 2000, 1, last, row, row, NO_HINT);
    assertThat(second.hit()).isGreaterThan(second.selected() * 9 / 10);
    session.close();
  }

  /** Runs work at once, or keeps it until it is run. */
  private static final class Held extends EndlessExecutor {
    private final List<Runnable> kept = new ArrayList<>();
    private boolean holds;

    @Override
    public void execute(Runnable task) {
      if (holds) {
        kept.add(task);
      } else {
        task.run();
      }
    }
  }

  /**
   * Layer 0 dense, so that nothing but a prefetch fetches there; layer 1 sparse, with a hot set.
   */
  private static Session halfDense() {
    Session info = info(HeadClass.HEAD_CLASS_SPARSE, 0);
    Plan.Builder plan = info.getPlan().toBuilder().setHotSetBytes(4 << 20);
    HeadPlan dense = HeadPlan.newBuilder().setHeadClass(HeadClass.HEAD_CLASS_DENSE).build();
    plan.setHeads(0, dense).setHeads(1, dense.toBuilder().setKvHead(1));
    return info.toBuilder().setPlan(plan).build();
  }

  /** A hint whose step is over fetches nothing, and neither does one beside another's fetch. */
  @Test
  void aHintThatComesTooLateIsDropped() {
    Held held = new Held();
    WorkerSession session = open(halfDense(), held);
    for (int layer = 0; layer < 2; layer++) {
      float[] rows = gaussian(1500 * KV_ROW);
      assertThat(session.append(layer, 0, 1500, rows, rows)).isEqualTo(1500);
    }
    assertThat(session.finish(1500, (i, t, c, f, d) -> i.getPlan())).isNotNull();
    float[] row = new float[KV_ROW];
    held.holds = true;
    assertThat(session.step(0, 1500, 1, gaussian(Q_ROW), row, row, gaussian(Q_ROW)).fetched())
        .isZero();
    held.holds = false;
    assertThat(held.kept).hasSize(1);
    assertThat(session.step(1, 1500, 1, gaussian(Q_ROW), row, row, NO_HINT).prefetched()).isZero();
    int before = tier.rowsRead.get();
    held.kept.forEach(Runnable::run);
    assertThat(tier.rowsRead.get()).isEqualTo(before);
    // In time, the next one fetches.
    assertThat(session.step(0, 1501, 1, gaussian(Q_ROW), row, row, gaussian(Q_ROW)).fetched())
        .isZero();
    assertThat(tier.rowsRead.get()).isGreaterThan(before);
    assertThat(session.step(1, 1501, 1, gaussian(Q_ROW), row, row, NO_HINT).prefetched())
        .isPositive();
    session.close();
  }

  /** Nobody is asked for a plan where there is one, and steps do as it says. */
  @Test
  void aPlanGivenByHandIsHonoured() {
    WorkerSession session = open(halfDense());
    for (int layer = 0; layer < 2; layer++) {
      float[] rows = gaussian(1500 * KV_ROW);
      assertThat(session.append(layer, 0, 1500, rows, rows)).isEqualTo(1500);
    }
    Plan made =
        session.finish(
            1500,
            (i, t, c, f, d) -> {
              throw new AssertionError("a plan was asked for");
            });
    assertThat(made).isEqualTo(halfDense().getPlan());
    float[] row = new float[KV_ROW];
    StepResult dense = session.step(0, 1500, 1, gaussian(Q_ROW), row, row, NO_HINT);
    assertThat(dense.selected()).isZero();
    StepResult sparse = session.step(1, 1500, 1, gaussian(Q_ROW), row, row, NO_HINT);
    assertThat(sparse.selected()).isBetween(2 * 64, 2 * 128);
    session.close();
  }

  /** A failed prefetch leaves nothing behind that a step could take for rows. */
  @Test
  void aPrefetchThatFailsIsForgotten() {
    Session half = halfDense();
    WorkerSession session = filled(half, 1500);
    WorkerSession control = session.fork(half);
    float[] next = gaussian(Q_ROW);
    float[] row = new float[KV_ROW];
    float[] expected = control.step(1, 1500, 1, next, row, row, NO_HINT).output();
    for (Fault fault : List.of(Fault.AWAY, Fault.SHORT)) {
      WorkerSession fork = session.fork(half);
      tier.fault = fault;
      // Dense heads need nothing: only the prefetch meets the fault.
      StepResult first = fork.step(0, 1500, 1, next, row, row, next);
      tier.fault = Fault.NONE;
      StepResult second = fork.step(1, 1500, 1, next, row, row, NO_HINT);
      assertThat(first.fetched()).isZero();
      assertThat(second.prefetched()).isZero();
      assertThat(second.hit()).isZero();
      assertThat(second.fetched()).isPositive();
      assertThat(second.output()).isEqualTo(expected);
      fork.close();
    }
    session.close();
    control.close();
  }
}
