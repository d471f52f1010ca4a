package io.kvtier.gpuworker.session;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.google.common.util.concurrent.MoreExecutors;
import com.google.protobuf.ByteString;
import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.gpuworker.cpu.CpuDevice;
import io.kvtier.gpuworker.device.LayerShape;
import io.kvtier.gpuworker.session.FaultyTransport.Fault;
import io.kvtier.page.Codec;
import io.kvtier.page.PageLayout;
import io.kvtier.v1.Dtype;
import io.kvtier.v1.Geometry;
import io.kvtier.v1.HeadClass;
import io.kvtier.v1.HeadPlan;
import io.kvtier.v1.Plan;
import io.kvtier.v1.Session;
import java.util.SplittableRandom;
import java.util.UUID;
import java.util.concurrent.ExecutorService;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

/**
 * A session when its tier misbehaves: refusals change nothing, and what failed can be sent again.
 */
class WorkerSessionTest {
  private static final int KV_ROW = 128;
  private static final int Q_ROW = 256;
  private static final float[] NO_HINT = {};

  private final CpuDevice device = new CpuDevice(64L << 20);
  private final FaultyTransport tier =
      new FaultyTransport(new PageLayout(Codec.ROT4, Codec.ROT4, 2, 64));

  /** Background work runs at once, so that tests need not wait. */
  private final ExecutorService background = MoreExecutors.newDirectExecutorService();

  private final SplittableRandom random = new SplittableRandom(5);

  @AfterEach
  void nothingIsLeftOnTheDevice() {
    background.close();
    assertThat(device.memory().bytesUsed()).isZero();
    device.close();
  }

  private static Session info(HeadClass headClass, long deviceBytesMax) {
    Geometry geometry =
        Geometry.newBuilder()
            .setLayers(2)
            .setQHeads(4)
            .setKvHeads(2)
            .setHeadDim(64)
            .setKvDtype(Dtype.DTYPE_BF16)
            .setModelFingerprint(ByteString.copyFromUtf8("0123456789abcdef"))
            .build();
    return Session.newBuilder()
        .setSessionId(UUID.randomUUID().toString())
        .setEpoch(1)
        .setGeometry(geometry)
        .setTokensMax(5000)
        .setDeviceBytesMax(deviceBytesMax)
        .setPlan(plan(headClass))
        .build();
  }

  private static Plan plan(HeadClass headClass) {
    Plan.Builder plan = Plan.newBuilder().setDominantTokensMin(64).setHotSetBytes(0);
    for (int i = 0; i < 4; i++) {
      HeadPlan.Builder head =
          HeadPlan.newBuilder().setLayer(i / 2).setKvHead(i % 2).setHeadClass(headClass);
      if (headClass == HeadClass.HEAD_CLASS_SPARSE) {
        head.setDominantTokensMax(128).setResidualMass(.01f);
      }
      plan.addHeads(head);
    }
    return plan.build();
  }

  private WorkerSession open(Session info) {
    WorkerSession.Limits limits = new WorkerSession.Limits(1 << 20, 2_000_000_000L);
    return WorkerSession.open(info, device, tier, background, limits);
  }

  private WorkerSession filled(Session info, int tokens) {
    WorkerSession session = open(info);
    for (int layer = 0; layer < 2; layer++) {
      float[] rows = gaussian(tokens * KV_ROW);
      assertThat(session.append(layer, 0, tokens, rows, rows)).isEqualTo(tokens);
    }
    assertThat(session.finish(tokens, (i, t, c, f, d) -> i.getPlan())).isEqualTo(info.getPlan());
    return session;
  }

  private float[] gaussian(int length) {
    float[] x = new float[length];
    for (int i = 0; i < length; i++) {
      x[i] = (float) random.nextGaussian();
    }
    return x;
  }

  private static StepResult step(WorkerSession session, int position, float[] query) {
    float[] row = new float[KV_ROW];
    return session.step(0, position, 1, query, row, row, NO_HINT);
  }

  @Test
  void aStepThatCannotFetchChangesNothingAndCanBeSentAgain() {
    WorkerSession session = filled(info(HeadClass.HEAD_CLASS_SPARSE, 0), 1000);
    float[] query = gaussian(Q_ROW);
    WorkerSession control = session.fork(info(HeadClass.HEAD_CLASS_SPARSE, 0));
    float[] expected = step(control, 1000, query).output();
    tier.fault = Fault.AWAY;
    refused(Code.UNAVAILABLE, () -> step(session, 1000, query));
    tier.fault = Fault.SHORT;
    refused(Code.LOST, () -> step(session, 1000, query));
    tier.fault = Fault.NONE;
    assertThat(session.tokens(0)).isEqualTo(1000);
    assertThat(step(session, 1000, query).output()).isEqualTo(expected);
    control.close();
    session.close();
    assertThat(tier.pages).isEmpty();
  }

  @Test
  void aLostPageIsAnErrorNeverAnOutput() {
    WorkerSession session = filled(info(HeadClass.HEAD_CLASS_SPARSE, 0), 1000);
    tier.pages.clear();
    refused(Code.LOST, () -> step(session, 1000, gaussian(Q_ROW)));
    assertThat(session.tokens(0)).isEqualTo(1000);
    session.close();
  }

  @Test
  void pagesWaitForAFullTierAndAreStoredOnceItHasRoom() {
    WorkerSession session = open(info(HeadClass.HEAD_CLASS_SPARSE, 0));
    float[] rows = gaussian(400 * KV_ROW);
    tier.fault = Fault.FULL;
    assertThat(session.append(0, 0, 400, rows, rows)).isEqualTo(400);
    // Who comes next is told of the put that failed, and has it tried again.
    refused(Code.EXHAUSTED, () -> session.append(1, 0, 400, rows, rows));
    assertThat(session.tokens(1)).isZero();
    tier.fault = Fault.NONE;
    refused(Code.EXHAUSTED, () -> session.append(1, 0, 400, rows, rows));
    assertThat(session.append(1, 0, 400, rows, rows)).isEqualTo(400);
    assertThat(session.durableTokens(0)).isEqualTo(5 * 64);
    session.close();
    assertThat(tier.pages).isEmpty();
  }

  @Test
  void closingFreesTheDeviceWhateverTheTierDoesAndDeletesThePagesLater() {
    SessionTable table =
        new SessionTable(device, id -> tier, 4, new WorkerSession.Limits(1 << 20, 2_000_000_000L));
    Session info = info(HeadClass.HEAD_CLASS_SPARSE, 0);
    table.attach(info, "");
    WorkerSession session = table.require(info.getSessionId(), 1);
    float[] rows = gaussian(400 * KV_ROW);
    assertThat(session.append(0, 0, 400, rows, rows)).isEqualTo(400);
    // Once the second layer has as many, finishing waits until the tier has all pages.
    assertThat(session.append(1, 0, 400, rows, rows)).isEqualTo(400);
    assertThat(session.finish(400, (i, t, c, f, d) -> i.getPlan())).isEqualTo(info.getPlan());
    assertThat(tier.pages).hasSize(10);
    tier.fault = Fault.AWAY;
    table.detach(info.getSessionId());
    assertThat(device.memory().bytesUsed()).isZero();
    assertThat(tier.pages).hasSize(10);
    tier.fault = Fault.NONE;
    table.detach("another");
    assertThat(tier.pages).isEmpty();
    table.close();
  }

  @Test
  void aRefusedPlanHoldsNothing() {
    Session good = info(HeadClass.HEAD_CLASS_DENSE, 0);
    Session bad =
        good.toBuilder()
            .setPlan(
                good.getPlan().toBuilder()
                    .setHeads(3, good.getPlan().getHeads(3).toBuilder().setLayer(0)))
            .build();
    refused(Code.INVALID, () -> open(bad));
    assertThat(device.memory().bytesUsed()).isZero();
  }

  @Test
  void aForkMidStepIsRefusedAndAForkOfAClosedSessionToo() {
    WorkerSession session = filled(info(HeadClass.HEAD_CLASS_DENSE, 0), 500);
    step(session, 500, gaussian(Q_ROW));
    refused(Code.PRECONDITION, () -> session.fork(info(HeadClass.HEAD_CLASS_DENSE, 0)));
    session.close();
    refused(Code.NOT_FOUND, () -> session.fork(info(HeadClass.HEAD_CLASS_DENSE, 0)));
    session.close();
  }

  @Test
  void tokensBeyondTheDeviceBytesAreRefusedBeforeAnythingChanges() {
    LayerShape shape = Sessions.shapeOf(info(HeadClass.HEAD_CLASS_SPARSE, 0));
    long max = 2 * (shape.exactRowBytes() + 10L * shape.sketchBytes()) + 4096;
    WorkerSession session = open(info(HeadClass.HEAD_CLASS_SPARSE, max));
    float[] rows = gaussian(4000 * KV_ROW);
    assertThat(session.append(0, 0, 600, rows, rows)).isEqualTo(600);
    refused(Code.EXHAUSTED, () -> session.append(0, 600, 3000, rows, rows));
    assertThat(session.tokens(0)).isEqualTo(600);
    assertThat(session.deviceBytes()).isLessThanOrEqualTo(max);
    session.close();
  }

  private static void refused(Code code, Runnable call) {
    assertThatThrownBy(call::run)
        .isInstanceOfSatisfying(KvtierException.class, e -> assertThat(e.code()).isEqualTo(code));
  }
}
