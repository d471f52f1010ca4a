package io.kvtier.gpuworker.session;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.google.common.util.concurrent.MoreExecutors;
import com.google.protobuf.ByteString;
import io.kvtier.KvtierException;
import io.kvtier.gpuworker.cpu.CpuDevice;
import io.kvtier.gpuworker.session.FaultyTransport.Fault;
import io.kvtier.gpuworker.trace.StepListener;
import io.kvtier.page.Codec;
import io.kvtier.page.PageLayout;
import io.kvtier.v1.Dtype;
import io.kvtier.v1.Geometry;
import io.kvtier.v1.HeadClass;
import io.kvtier.v1.HeadPlan;
import io.kvtier.v1.NearUse;
import io.kvtier.v1.Plan;
import io.kvtier.v1.Session;
import java.util.SplittableRandom;
import java.util.UUID;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/** Streamed heads whose pages the tier attends to: the output of fetched ones, or they are. */
class NearAttentionTest {
  private static final int TOKENS = 1000;
  private static final int KV_ROW = 128;
  private static final int Q_ROW = 256;

  private final CpuDevice device = new CpuDevice(64L << 20);
  private final FaultyTransport tier =
      new FaultyTransport(new PageLayout(Codec.ROT4, Codec.ROT4, 2, 64));

  /** Runs all at once, unless a test has another. */
  private ExecutorService background = MoreExecutors.newDirectExecutorService();

  private final SplittableRandom random = new SplittableRandom(11);
  private final float[] rows = gaussian(TOKENS * KV_ROW);

  @AfterEach
  void nothingIsLeftOnTheDevice() {
    background.close();
    assertThat(device.memory().bytesUsed()).isZero();
    device.close();
  }

  private float[] gaussian(int length) {
    float[] x = new float[length];
    for (int i = 0; i < length; i++) {
      x[i] = (float) random.nextGaussian();
    }
    return x;
  }

  /** A session of one layer, with a streamed head and a sparse one, or two streamed ones. */
  private WorkerSession filled(NearUse use, HeadClass second) {
    Geometry geometry =
        Geometry.newBuilder()
            .setLayers(1)
            .setQHeads(4)
            .setKvHeads(2)
            .setHeadDim(64)
            .setKvDtype(Dtype.DTYPE_BF16)
            .setModelFingerprint(ByteString.copyFromUtf8("0123456789abcdef"))
            .build();
    HeadPlan.Builder other = HeadPlan.newBuilder().setKvHead(1).setHeadClass(second);
    if (second == HeadClass.HEAD_CLASS_SPARSE) {
      other.setDominantTokensMax(128).setResidualMass(.01f);
    }
    Plan plan =
        Plan.newBuilder()
            .setDominantTokensMin(64)
            .setNear(use)
            .addHeads(HeadPlan.newBuilder().setHeadClass(HeadClass.HEAD_CLASS_STREAMED))
            .addHeads(other)
            .build();
    Session info =
        Session.newBuilder()
            .setSessionId(UUID.randomUUID().toString())
            .setEpoch(1)
            .setGeometry(geometry)
            .setTokensMax(5000)
            .setPlan(plan)
            .build();
    tier.attends = true;
    SessionLimits limits = new SessionLimits(1 << 20, 2_000_000_000L);
    WorkerSession session =
        SessionOpening.open(
            info,
            Prefix.NONE,
            new SessionHost(
                device, tier, background, limits, new PendingBytes(16 << 20), StepListener.NONE));
    assertThat(session.append(0, 0, TOKENS, rows, rows)).isEqualTo(TOKENS);
    assertThat(session.finish(TOKENS, (i, t, c, f, d) -> i.getPlan())).isEqualTo(plan);
    return session;
  }

  private static StepResult step(WorkerSession session, float[] query) {
    float[] row = new float[KV_ROW];
    return session.step(0, session.tokens(0), 1, query, row, row, new float[0]);
  }

  @ParameterizedTest
  @EnumSource(
      value = HeadClass.class,
      names = {"HEAD_CLASS_STREAMED", "HEAD_CLASS_SPARSE", "HEAD_CLASS_DENSE"})
  void theOutputIsThatOfFetchedPagesToTheBit(HeadClass second) {
    WorkerSession near = filled(NearUse.NEAR_USE_ALWAYS, second);
    WorkerSession fetched = filled(NearUse.NEAR_USE_NEVER, second);
    int streamed = second == HeadClass.HEAD_CLASS_STREAMED ? 2 : 1;
    float[] checked = gaussian(Q_ROW);
    assertThat(step(near, checked).output()).isEqualTo(step(fetched, checked).output());
    for (int i = 0; i < 5; i++) {
      float[] query = gaussian(Q_ROW);
      int sectionCalls = tier.sectionCalls.get();
      StepResult actual = step(near, query);
      assertThat(tier.sectionCalls.get()).isEqualTo(sectionCalls);
      StepResult expected = step(fetched, query);
      assertThat(actual.output()).isEqualTo(expected.output());
      assertThat(actual.lse()).isEqualTo(expected.lse());
      int pages = (TOKENS - 64) / PageLayout.TOKENS;
      assertThat(actual.near()).isEqualTo(streamed * pages);
      assertThat(expected.near()).isZero();
      assertThat(actual.bytesFetched()).isLessThan(expected.bytesFetched());
    }
    assertThat(tier.attendCalls.get()).isEqualTo(6);
    near.close();
    fetched.close();
  }

  /**
   * What the tier takes beside the step's own work costs the step nothing: here it has answered
   * before the step looks, if slowly.
   */
  @Test
  void anAnswerIsChargedWhatTheStepWaitsForIt() {
    WorkerSession session = filled(NearUse.NEAR_USE_UNSPECIFIED, HeadClass.HEAD_CLASS_STREAMED);
    tier.attendNs = 10_000_000;
    assertThat(step(session, gaussian(Q_ROW)).near()).isZero();
    int near = 0;
    for (int i = 0; i < 20; i++) {
      near += step(session, gaussian(Q_ROW)).near() > 0 ? 1 : 0;
    }
    // The others are checks.
    assertThat(near).isGreaterThan(10);
    session.close();
  }

  /** Pages that the tier has not taken yet are attended to here, the others there. */
  @Test
  void pagesThatWaitToBeStoredAreAttendedToHere() {
    background = Executors.newVirtualThreadPerTaskExecutor();
    WorkerSession near = filled(NearUse.NEAR_USE_ALWAYS, HeadClass.HEAD_CLASS_STREAMED);
    WorkerSession fetched = filled(NearUse.NEAR_USE_NEVER, HeadClass.HEAD_CLASS_STREAMED);
    tier.puts = new CountDownLatch(1);
    double worst = 0;
    int most = 0;
    for (int i = 0; i < 150; i++) {
      float[] query = gaussian(Q_ROW);
      float[] row = gaussian(KV_ROW);
      int position = TOKENS + i;
      StepResult actual = near.step(0, position, 1, query, row, row, new float[0]);
      StepResult expected = fetched.step(0, position, 1, query, row, row, new float[0]);
      worst = Math.max(worst, difference(actual.output(), expected.output()));
      most = Math.max(most, actual.fetched());
    }
    // Two partials where there was one sum: no longer the same bits.
    assertThat(worst).isLessThan(1e-6);
    assertThat(most).isGreaterThanOrEqualTo(4);
    tier.puts.countDown();
    near.close();
    fetched.close();
  }

  private static double difference(float[] actual, float[] expected) {
    double difference = 0;
    double norm = 0;
    for (int i = 0; i < expected.length; i++) {
      difference += Math.pow(actual[i] - (double) expected[i], 2);
      norm += Math.pow(expected[i], 2);
    }
    return Math.sqrt(difference / norm);
  }

  @ParameterizedTest
  @EnumSource(
      value = Fault.class,
      names = {"NONE", "WRONG_OUTPUT", "WRONG_LSE", "SKIPS"})
  void theFirstPartialIsHeldAgainstTheFetchedPages(Fault fault) {
    WorkerSession session = filled(NearUse.NEAR_USE_UNSPECIFIED, HeadClass.HEAD_CLASS_STREAMED);
    WorkerSession control = filled(NearUse.NEAR_USE_NEVER, HeadClass.HEAD_CLASS_STREAMED);
    tier.fault = fault;
    float[] query = gaussian(Q_ROW);
    StepResult first = step(session, query);
    assertThat(first.output()).isEqualTo(step(control, query).output());
    assertThat(first.near()).isZero();
    assertThat(tier.attendCalls.get()).isEqualTo(1);
    // What is measured then decides: some hundreds of steps check again. Not after a wrong answer.
    for (int i = 0; i < 1100; i++) {
      assertThat(step(session, query).output()).isNotEmpty();
    }
    if (fault == Fault.NONE) {
      assertThat(tier.attendCalls.get()).isGreaterThan(1);
    } else {
      assertThat(tier.attendCalls.get()).isEqualTo(1);
    }
    tier.fault = Fault.NONE;
    session.close();
    control.close();
  }

  @Test
  void whatTheTierIsTooBusyForIsFetchedForAWhile() {
    WorkerSession session = filled(NearUse.NEAR_USE_ALWAYS, HeadClass.HEAD_CLASS_STREAMED);
    WorkerSession control = filled(NearUse.NEAR_USE_NEVER, HeadClass.HEAD_CLASS_STREAMED);
    tier.fault = Fault.BUSY;
    for (int i = 0; i < 9; i++) {
      float[] query = gaussian(Q_ROW);
      StepResult result = step(session, query);
      assertThat(result.output()).isEqualTo(step(control, query).output());
      assertThat(result.near()).isZero();
      assertThat(tier.attendCalls.get()).isEqualTo(1);
    }
    tier.fault = Fault.NONE;
    // Not answered before: this one is held against the fetched pages.
    assertThat(step(session, gaussian(Q_ROW)).near()).isZero();
    assertThat(step(session, gaussian(Q_ROW)).near()).isPositive();
    session.close();
    control.close();
  }

  /** A plan that has the tier attend always is checked too. */
  @ParameterizedTest
  @EnumSource(
      value = Fault.class,
      names = {"WRONG_OUTPUT", "WRONG_LSE", "SKIPS"})
  void aPlanThatAsksForPartialsIsNotGivenWrongOnes(Fault fault) {
    WorkerSession session = filled(NearUse.NEAR_USE_ALWAYS, HeadClass.HEAD_CLASS_STREAMED);
    WorkerSession control = filled(NearUse.NEAR_USE_NEVER, HeadClass.HEAD_CLASS_STREAMED);
    tier.fault = fault;
    for (int i = 0; i < 3; i++) {
      float[] query = gaussian(Q_ROW);
      StepResult result = step(session, query);
      assertThat(result.output()).isEqualTo(step(control, query).output());
      assertThat(result.near()).isZero();
    }
    assertThat(tier.attendCalls.get()).isEqualTo(1);
    tier.fault = Fault.NONE;
    session.close();
    control.close();
  }

  /** The step waits for some time, not for the tier. */
  @Test
  void aTierThatSaysNothingIsNotWaitedFor() {
    background = Executors.newVirtualThreadPerTaskExecutor();
    WorkerSession session = filled(NearUse.NEAR_USE_ALWAYS, HeadClass.HEAD_CLASS_STREAMED);
    WorkerSession control = filled(NearUse.NEAR_USE_NEVER, HeadClass.HEAD_CLASS_STREAMED);
    tier.fault = Fault.SILENT;
    tier.puts = new CountDownLatch(1);
    float[] query = gaussian(Q_ROW);
    StepResult result = step(session, query);
    assertThat(tier.puts.getCount()).isOne();
    assertThat(result.output()).isEqualTo(step(control, query).output());
    assertThat(result.unhiddenNs()).isLessThan(2_000_000_000L);
    tier.puts.countDown();
    session.close();
    control.close();
  }

  @Test
  void whateverFailsPagesAreFetched() {
    WorkerSession session = filled(NearUse.NEAR_USE_ALWAYS, HeadClass.HEAD_CLASS_STREAMED);
    WorkerSession control = filled(NearUse.NEAR_USE_NEVER, HeadClass.HEAD_CLASS_STREAMED);
    tier.fault = Fault.BROKEN;
    float[] query = gaussian(Q_ROW);
    assertThat(step(session, query).output()).isEqualTo(step(control, query).output());
    session.close();
    control.close();
  }

  /** Whatever the clock says, outputs have the same bits. */
  @Test
  void partialsOfOtherBitsAreTakenOnlyWhereAPlanSaysSo() {
    tier.parts = 2;
    WorkerSession measured = filled(NearUse.NEAR_USE_UNSPECIFIED, HeadClass.HEAD_CLASS_STREAMED);
    WorkerSession always = filled(NearUse.NEAR_USE_ALWAYS, HeadClass.HEAD_CLASS_STREAMED);
    for (int i = 0; i < 300; i++) {
      assertThat(step(measured, gaussian(Q_ROW)).near()).isZero();
    }
    assertThat(tier.attendCalls.get()).isEqualTo(1);
    assertThat(step(always, gaussian(Q_ROW)).near()).isZero();
    assertThat(step(always, gaussian(Q_ROW)).near()).isPositive();
    measured.close();
    always.close();
  }

  @Test
  void aTierThatAttendsToNothingIsAskedOnce() {
    WorkerSession session = filled(NearUse.NEAR_USE_ALWAYS, HeadClass.HEAD_CLASS_STREAMED);
    tier.attends = false;
    for (int i = 0; i < 3; i++) {
      assertThat(step(session, gaussian(Q_ROW)).fetched()).isPositive();
    }
    assertThat(tier.attendCalls.get()).isEqualTo(1);
    session.close();
  }

  @Test
  void aLostPageIsAnErrorNeverAnOutput() {
    WorkerSession session = filled(NearUse.NEAR_USE_ALWAYS, HeadClass.HEAD_CLASS_STREAMED);
    tier.pages.clear();
    assertThatThrownBy(() -> step(session, gaussian(Q_ROW)))
        .isInstanceOfSatisfying(
            KvtierException.class, e -> assertThat(e.code()).isEqualTo(KvtierException.Code.LOST));
    assertThat(session.tokens(0)).isEqualTo(TOKENS);
    session.close();
  }
}
