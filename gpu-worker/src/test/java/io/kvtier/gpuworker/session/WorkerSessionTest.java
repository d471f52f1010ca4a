package io.kvtier.gpuworker.session;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.google.common.util.concurrent.MoreExecutors;
import com.google.protobuf.ByteString;
import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.gpuworker.core.Rescore;
import io.kvtier.gpuworker.cpu.CpuDevice;
import io.kvtier.gpuworker.device.LayerShape;
import io.kvtier.gpuworker.session.FaultyTransport.Fault;
import io.kvtier.gpuworker.trace.StepListener;
import io.kvtier.page.Codec;
import io.kvtier.page.PageLayout;
import io.kvtier.page.Residence;
import io.kvtier.v1.Dtype;
import io.kvtier.v1.Geometry;
import io.kvtier.v1.HeadClass;
import io.kvtier.v1.HeadPlan;
import io.kvtier.v1.Plan;
import io.kvtier.v1.Session;
import java.util.Arrays;
import java.util.List;
import java.util.SplittableRandom;
import java.util.UUID;
import java.util.concurrent.ExecutorService;
import java.util.stream.IntStream;
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
    SessionLimits limits = new SessionLimits(1 << 20, 2_000_000_000L);
    return SessionOpening.open(
        info, Prefix.NONE, new SessionHost(device, tier, background, limits, StepListener.NONE));
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

  /** A session with the same tokens as another that {@link #filled} made. */
  private WorkerSession filled(Session info, int tokens, WorkerSession other) {
    WorkerSession session = open(info);
    for (int layer = 0; layer < 2; layer++) {
      int of = layer;
      other.load(
          layer,
          0,
          tokens,
          (position, n, keys, values) ->
              assertThat(session.append(of, position, n, keys, values)).isEqualTo(position + n));
    }
    assertThat(session.finish(tokens, (i, t, c, f, p) -> i.getPlan())).isEqualTo(info.getPlan());
    return session;
  }

  private static double difference(float[] actual, float[] expected) {
    double difference = 0;
    double norm = 0;
    for (int i = 0; i < expected.length; i++) {
      difference += Math.pow(actual[i] - expected[i], 2);
      norm += Math.pow(expected[i], 2);
    }
    return Math.sqrt(difference / norm);
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

  /** A tree's acceptance counts only once the step that brings it is served. */
  @Test
  void aStepThatCannotFetchLeavesTheTreeWaiting() {
    WorkerSession session = filled(info(HeadClass.HEAD_CLASS_SPARSE, 0), 1000);
    WorkerSession control = session.fork(info(HeadClass.HEAD_CLASS_SPARSE, 0));
    float[] query = gaussian(Q_ROW);
    float[] queries = gaussian(3 * Q_ROW);
    float[] rows = gaussian(3 * KV_ROW);
    int[] parents = {-1, 0, 0};
    assertThat(
            session
                .step(new TokenStep(0, 1000, 3, queries, rows, rows, NO_HINT, parents, null))
                .output())
        .hasSize(3 * Q_ROW);
    float[] row = new float[KV_ROW];
    TokenStep next =
        new TokenStep(0, 1002, 1, query, row, row, NO_HINT, new int[0], new int[] {0, 2});
    tier.fault = Fault.AWAY;
    refused(Code.UNAVAILABLE, () -> session.step(next));
    tier.fault = Fault.NONE;
    assertThat(session.tokens(0)).isEqualTo(1000);
    for (int node : new int[] {0, 2}) {
      float[] own = Arrays.copyOfRange(rows, node * KV_ROW, (node + 1) * KV_ROW);
      int position = control.tokens(0);
      assertThat(control.step(0, position, 1, query, own, own, NO_HINT).output()).isNotEmpty();
    }
    // Appended rows are rounded to bf16; another tree's would differ a hundredfold.
    assertThat(difference(session.step(next).output(), step(control, 1002, query).output()))
        .isLessThan(1e-3);
    assertThat(session.tokens(0)).isEqualTo(1003);
    control.close();
    session.close();
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
        new SessionTable(
            device, id -> tier, 4, new SessionLimits(1 << 20, 2_000_000_000L), StepListener.NONE);
    Session info = info(HeadClass.HEAD_CLASS_SPARSE, 0);
    assertThat(table.attach(info, "", Prefix.NONE)).isZero();
    WorkerSession session = table.require(info.getSessionId(), 1);
    float[] rows = gaussian(400 * KV_ROW);
    assertThat(session.append(0, 0, 400, rows, rows)).isEqualTo(400);
    // Once the second layer has as many, finishing waits until the tier has all pages.
    assertThat(session.append(1, 0, 400, rows, rows)).isEqualTo(400);
    assertThat(session.finish(400, (i, t, c, f, d) -> i.getPlan())).isEqualTo(info.getPlan());
    // Five pages of each layer, and its sink rows.
    assertThat(tier.pages).hasSize(12);
    tier.fault = Fault.AWAY;
    table.detach(info.getSessionId());
    assertThat(device.memory().bytesUsed()).isZero();
    assertThat(tier.pages).hasSize(12);
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
  void aSessionThatGrowsBeyondItsDeviceBytesDemotesItsHeadsAndGoesOn() {
    LayerShape shape = Sessions.shapeOf(info(HeadClass.HEAD_CLASS_DENSE, 0));
    long page = 4L * Residence.DENSE.deviceBytes(shape.layout());
    long max = 2 * shape.exactRowBytes() + 32L * LayerStep.stagingSlotBytes(shape) + 4 * page;
    WorkerSession session = filled(info(HeadClass.HEAD_CLASS_DENSE, max), 1000);
    WorkerSession control = filled(info(HeadClass.HEAD_CLASS_DENSE, 0), 1000, session);
    float[] row = new float[64 * KV_ROW];
    for (int position = 1000; position < 2800; position += 64) {
      int n = Math.min(64, 2800 - position);
      float[] queries = gaussian(n * Q_ROW);
      for (int layer = 0; layer < 2; layer++) {
        float[] rows = Arrays.copyOf(row, n * KV_ROW);
        float[] q = queries;
        float[] demoted = session.step(layer, position, n, q, rows, rows, NO_HINT).output();
        float[] dense = control.step(layer, position, n, q, rows, rows, NO_HINT).output();
        assertThat(difference(demoted, dense)).isLessThan(.3);
        assertThat(session.deviceBytes()).isLessThanOrEqualTo(max);
      }
    }
    assertThat(control.deviceBytes()).isGreaterThan(max);
    session.close();
    control.close();
  }

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

  /** A failed prefetch leaves nothing behind that a step could take for rows. */
  @Test
  void aPrefetchThatFailsIsForgotten() {
    Session info = info(HeadClass.HEAD_CLASS_SPARSE, 0);
    Plan.Builder plan = info.getPlan().toBuilder().setHotSetBytes(4 << 20);
    HeadPlan dense = HeadPlan.newBuilder().setHeadClass(HeadClass.HEAD_CLASS_DENSE).build();
    plan.setHeads(0, dense).setHeads(1, dense.toBuilder().setKvHead(1));
    Session half = info.toBuilder().setPlan(plan).build();
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

  /**
   * Of candidates that a one-plane sketch finds, those of most mass by their full codes are given.
   * The sketch alone finds less than half of them among random keys.
   */
  @Test
  void gatheredTokensAreRankedByTheirFullCodes() {
    Session info = info(HeadClass.HEAD_CLASS_SPARSE, 0);
    Plan.Builder onePlane = info.getPlan().toBuilder();
    onePlane.getHeadsBuilderList().forEach(head -> head.setSketchPlanes(1));
    WorkerSession session = filled(info.toBuilder().setPlan(onePlane).build(), 3000);
    float[][] keys = new float[1][3000 * KV_ROW];
    session.load(
        0,
        0,
        3000,
        (position, n, k, v) -> System.arraycopy(k, 0, keys[0], position * KV_ROW, n * KV_ROW));
    int exact = 3000 - 64 * ((3000 - 64) / 64) + 4;
    int hits = 0;
    for (int i = 0; i < 10; i++) {
      float[] query = gaussian(Q_ROW);
      List<SessionReader.HeadRows> gathered = session.gather(0, query, exact + 32, false);
      for (int head = 0; head < 2; head++) {
        int[] best = bestByKeys(keys[0], query, head, exact);
        int[] given = gathered.get(head).positions();
        assertThat(given).hasSize(exact + 32);
        hits +=
            (int) IntStream.of(best).filter(t -> IntStream.of(given).anyMatch(x -> x == t)).count();
      }
    }
    assertThat(hits / (20. * 32)).isGreaterThan(.6);
    session.close();
  }

  /** The 32 paged tokens of most mass, pooled over the group of two. */
  private static int[] bestByKeys(float[] keys, float[] query, int head, int exact) {
    int paged = 3000 - (exact - 4);
    float[][] scores = new float[2][3000];
    for (int g = 0; g < 2; g++) {
      for (int t = 0; t < 3000; t++) {
        for (int d = 0; d < 64; d++) {
          scores[g][t] += query[(head * 2 + g) * 64 + d] * keys[t * KV_ROW + head * 64 + d] / 8;
        }
      }
    }
    return Rescore.largest(Rescore.masses(scores, 3000), 4, paged, 32);
  }

  @Test
  void aSessionThatCouldNotHoldOneTokenIsRefusedWithTheNumbers() {
    assertThatThrownBy(() -> open(info(HeadClass.HEAD_CLASS_STREAMED, 1)))
        .isInstanceOfSatisfying(
            KvtierException.class, e -> assertThat(e.code()).isEqualTo(Code.EXHAUSTED))
        .hasMessageMatching("device_bytes_max is 1 and .* take [0-9]+; open the session with .*");
    assertThat(device.memory().bytesUsed()).isZero();
  }

  private static void refused(Code code, Runnable call) {
    assertThatThrownBy(call::run)
        .isInstanceOfSatisfying(KvtierException.class, e -> assertThat(e.code()).isEqualTo(code));
  }
}
