package io.kvtier.gpuworker.session;

import static org.assertj.core.api.Assertions.assertThat;

import io.kvtier.gpuworker.core.ResidualCurve;
import io.kvtier.v1.AheadUse;
import io.kvtier.v1.HeadClass;
import io.kvtier.v1.HeadPlan;
import io.kvtier.v1.Plan;
import io.kvtier.v1.Session;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** Rows fetched ahead without hints, of heads that choose again what they chose. */
@Timeout(60)
class LastChosenTest extends SessionFixture {
  private static final int TOKENS = 2000;
  private static final int STEPS = 12;

  /** Layer 0 dense; layer 1 sparse, and no bytes to keep rows in. */
  private static Session tight(long deviceBytesMax) {
    Session info = info(HeadClass.HEAD_CLASS_SPARSE, deviceBytesMax);
    HeadPlan dense = HeadPlan.newBuilder().setHeadClass(HeadClass.HEAD_CLASS_DENSE).build();
    Plan.Builder plan = info.getPlan().toBuilder();
    plan.setHeads(0, dense).setHeads(1, dense.toBuilder().setKvHead(1));
    return info.toBuilder().setPlan(plan).build();
  }

  /** Steps of both layers; the queries of layer 1 are of such a cosine. */
  private StepResult decode(WorkerSession session, double cosine) {
    float[] query = gaussian(Q_ROW);
    float[] row = new float[KV_ROW];
    for (int i = 0; ; i++) {
      float[] fresh = gaussian(Q_ROW);
      for (int d = 0; d < Q_ROW; d++) {
        query[d] = (float) (cosine * query[d] + Math.sqrt(1 - cosine * cosine) * fresh[d]);
      }
      float[] sharp = new float[Q_ROW];
      for (int d = 0; d < Q_ROW; d++) {
        sharp[d] = 3 * query[d];
      }
      int position = TOKENS + i;
      var _ = session.step(0, position, 1, gaussian(Q_ROW), row, row, NO_HINT);
      StepResult step = session.step(1, position, 1, sharp, row, row, NO_HINT);
      assertThat(step.selected()).isPositive();
      if (i == STEPS) {
        return step;
      }
    }
  }

  @Test
  void whatRecursIsThereBeforeTheStepThatChoosesItAgain() {
    WorkerSession session = filled(tight(0), TOKENS);
    StepResult step = decode(session, .999);
    assertThat(step.prefetched()).isGreaterThan(step.selected() / 2);
    assertThat(step.hit()).isGreaterThan(step.selected() * 3 / 4);
    assertThat(step.hit() + step.fetched()).isEqualTo(step.selected());
    assertThat(step.bytesWasted()).isEqualTo((step.prefetched() - step.hit()) * rowBytes());
    session.close();
  }

  @Test
  void whatDoesNotRecurIsNotFetchedAhead() {
    WorkerSession session = filled(tight(0), TOKENS);
    StepResult step = decode(session, .1);
    assertThat(step.prefetched()).isZero();
    assertThat(step.fetched()).isEqualTo(step.selected());
    session.close();
  }

  /** The plan of {@link #tight}, in which both heads of layer 1 say so. */
  private static Session planned(AheadUse ahead) {
    Session info = tight(0);
    Plan.Builder plan = info.getPlan().toBuilder();
    for (int head = 2; head < 4; head++) {
      plan.setHeads(head, plan.getHeads(head).toBuilder().setAhead(ahead));
    }
    return info.toBuilder().setPlan(plan).build();
  }

  @Test
  void aPlanThatSaysNothingIsFetchedAheadIsFollowed() {
    WorkerSession session = filled(planned(AheadUse.AHEAD_USE_NOTHING), TOKENS);
    StepResult step = decode(session, .999);
    assertThat(step.prefetched()).isZero();
    assertThat(step.fetched()).isEqualTo(step.selected());
    session.close();
  }

  @Test
  void aPlanThatSaysWhatWasChosenLastIsFetchedAheadIsFollowed() {
    WorkerSession session = filled(planned(AheadUse.AHEAD_USE_LAST), TOKENS);
    StepResult step = decode(session, .1);
    assertThat(step.prefetched()).isPositive();
    assertThat(step.bytesWasted())
        .isEqualTo((step.prefetched() - step.hit()) * rowBytes())
        .isPositive();
    session.close();
  }

  /** The prompt's last queries tell how much of its choice a head makes again. */
  @Test
  void theProfileTellsHowMuchRecurs() {
    for (double cosine : new double[] {.1, .999}) {
      WorkerSession session =
          open(info(HeadClass.HEAD_CLASS_SPARSE, 0).toBuilder().clearPlan().build());
      for (int layer = 0; layer < 2; layer++) {
        float[] rows = gaussian(TOKENS * KV_ROW);
        assertThat(session.append(layer, 0, TOKENS, rows, rows)).isEqualTo(TOKENS);
        assertThat(session.setQueries(layer, 32, queries(32, cosine))).isEqualTo(TOKENS);
      }
      var _ =
          session.finish(
              TOKENS,
              (info, tokens, curves, fixed, pages) -> {
                for (ResidualCurve[] layer : curves) {
                  for (ResidualCurve curve : layer) {
                    if (cosine > .5) {
                      assertThat(curve.overlap()).isBetween(.7f, 1f);
                    } else {
                      assertThat(curve.overlap()).isBetween(0f, .69f);
                    }
                  }
                }
                return plan(HeadClass.HEAD_CLASS_SPARSE);
              });
      session.close();
    }
  }

  private float[] queries(int count, double cosine) {
    float[] queries = new float[count * Q_ROW];
    float[] query = gaussian(Q_ROW);
    for (int i = 0; i < count; i++) {
      float[] fresh = gaussian(Q_ROW);
      for (int d = 0; d < Q_ROW; d++) {
        query[d] = (float) (cosine * query[d] + Math.sqrt(1 - cosine * cosine) * fresh[d]);
        // So sharp that few tokens are chosen, which chance alone would make alike.
        queries[i * Q_ROW + d] = 8 * query[d];
      }
    }
    return queries;
  }

  /** Nothing is fetched again that the device has kept. */
  @Test
  void whatTheHotSetKeepsIsNotFetchedAhead() {
    Session info = tight(0);
    Plan plan = info.getPlan().toBuilder().setHotSetBytes(4 << 20).build();
    WorkerSession session = filled(info.toBuilder().setPlan(plan).build(), TOKENS);
    StepResult step = decode(session, .999);
    assertThat(step.prefetched()).isZero();
    assertThat(step.hit()).isGreaterThan(step.selected() * 3 / 4);
    session.close();
  }

  /** What a step's rows took beside the hot set is given back when it ends. */
  @Test
  void whatWasLentIsGivenBack() {
    WorkerSession session = filled(tight(0), TOKENS);
    long before = session.deviceBytes();
    StepResult step = decode(session, .999);
    assertThat(step.deviceBytes()).isGreaterThan(before);
    assertThat(session.deviceBytes()).isEqualTo(before);
    session.close();
  }
}
