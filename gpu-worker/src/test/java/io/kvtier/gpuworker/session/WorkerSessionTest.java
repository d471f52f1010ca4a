package io.kvtier.gpuworker.session;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.gpuworker.core.Rescore;
import io.kvtier.gpuworker.device.LayerShape;
import io.kvtier.gpuworker.session.FaultyTransport.Fault;
import io.kvtier.gpuworker.trace.StepListener;
import io.kvtier.page.Residence;
import io.kvtier.v1.HeadClass;
import io.kvtier.v1.Plan;
import io.kvtier.v1.Session;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;

/**
 * A session when its tier misbehaves: refusals change nothing, and what failed can be sent again.
 */
class WorkerSessionTest extends SessionFixture {
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
  void closingFreesTheDeviceWhateverTheTierDoesAndThePagesAreDeletedByThemselves()
      throws InterruptedException {
    SessionTable table =
        new SessionTable(
            device,
            id -> tier,
            4,
            new SessionLimits(1 << 20, 2_000_000_000L),
            new PendingBytes(16 << 20),
            StepListener.NONE);
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
    assertThat(table.unsettled()).isEqualTo(1);
    tier.fault = Fault.NONE;
    long deadlineNs = System.nanoTime() + TimeUnit.SECONDS.toNanos(20);
    while (!tier.pages.isEmpty() && System.nanoTime() < deadlineNs) {
      TimeUnit.MILLISECONDS.sleep(5);
    }
    assertThat(tier.pages).as("nobody calls the table any more").isEmpty();
    table.close();
    assertThat(table.unsettled()).isZero();
  }

  /** What is durable is told as it is; dense heads take their codes from pages on their way. */
  @Test
  void aPromptMayBeFinishedAheadOfItsPages() throws InterruptedException {
    tier.puts = new CountDownLatch(1);
    ExecutorService threads = Executors.newVirtualThreadPerTaskExecutor();
    Session info = info(HeadClass.HEAD_CLASS_DENSE, 0);
    WorkerSession session = open(info, threads);
    float[] rows = gaussian(400 * KV_ROW);
    for (int layer = 0; layer < 2; layer++) {
      assertThat(session.append(layer, 0, 400, rows, rows)).isEqualTo(400);
    }
    assertThat(session.finish(400, true, (i, t, c, f, d) -> i.getPlan())).isEqualTo(info.getPlan());
    refused(Code.DEADLINE, () -> session.finish(400, (i, t, c, f, d) -> i.getPlan()));
    float[] query = gaussian(Q_ROW);
    float[] output = step(session, 400, query).output();
    assertThat(session.durableTokens(0)).isZero();
    assertThat(tier.pages).isEmpty();
    tier.puts.countDown();
    long deadlineNs = System.nanoTime() + TimeUnit.SECONDS.toNanos(20);
    while (session.durableTokens(1) < 5 * 64 && System.nanoTime() < deadlineNs) {
      TimeUnit.MILLISECONDS.sleep(5);
    }
    assertThat(session.durableTokens(0)).isEqualTo(5 * 64);
    assertThat(session.durableTokens(1)).isEqualTo(5 * 64);
    WorkerSession other = open(info(HeadClass.HEAD_CLASS_DENSE, 0));
    for (int layer = 0; layer < 2; layer++) {
      assertThat(other.append(layer, 0, 400, rows, rows)).isEqualTo(400);
    }
    assertThat(other.finish(400, (i, t, c, f, d) -> i.getPlan())).isEqualTo(info.getPlan());
    assertThat(step(other, 400, query).output()).isEqualTo(output);
    other.close();
    session.close();
    threads.close();
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
        // One plane of keys that are noise leaves up to .313; another head's output is off by 1.4.
        assertThat(difference(demoted, dense)).isLessThan(.35);
        assertThat(session.deviceBytes()).isLessThanOrEqualTo(max);
      }
    }
    assertThat(control.deviceBytes()).isGreaterThan(max);
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
}
