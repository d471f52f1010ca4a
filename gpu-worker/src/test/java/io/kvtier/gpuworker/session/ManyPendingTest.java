package io.kvtier.gpuworker.session;

import static io.kvtier.page.PageLayout.TOKENS;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.kvtier.KvtierException;
import io.kvtier.gpuworker.grpc.WorkerMeters;
import io.kvtier.gpuworker.session.FaultyTransport.Fault;
import io.kvtier.gpuworker.trace.StepListener;
import io.kvtier.v1.HeadClass;
import io.kvtier.v1.Session;
import io.micrometer.core.instrument.simple.SimpleMeterRegistry;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** Many sessions write to one tier that is away. */
@Timeout(60)
class ManyPendingTest extends SessionFixture {
  private static final int SESSIONS = 16;
  private static final int CHUNK = 2 * TOKENS;
  private static final long TOTAL = 2_000_000;
  private static final long TIMEOUT_NS = TimeUnit.MILLISECONDS.toNanos(200);

  private final PendingBytes pending = new PendingBytes(TOTAL);
  private final SessionTable table =
      new SessionTable(
          device,
          id -> tier,
          SESSIONS + 1,
          new SessionLimits(64 << 20, TIMEOUT_NS),
          pending,
          StepListener.NONE);
  private final SimpleMeterRegistry meters = new SimpleMeterRegistry();
  private final float[] rows = gaussian(CHUNK * KV_ROW);

  private WorkerSession attach() {
    Session info = info(HeadClass.HEAD_CLASS_SPARSE, 0).toBuilder().setTokensMax(100_000).build();
    assertThat(table.attach(info, "", Prefix.NONE)).isZero();
    return table.require(info.getSessionId(), 1);
  }

  private void add(WorkerSession session) {
    int at = session.tokens(0);
    assertThat(session.append(0, at, CHUNK, rows, rows)).isEqualTo(at + CHUNK);
  }

  private void addUntilRefused(WorkerSession session) {
    assertThatThrownBy(
            () -> {
              while (true) {
                add(session);
              }
            })
        .isInstanceOf(KvtierException.class)
        .hasMessageContaining("send the call again");
  }

  private double gauge() {
    return meters.get("kvtier.worker.pending.bytes").gauge().value();
  }

  @Test
  void togetherTheyHoldNoMoreThanTheWorkerMayAndGoOnWhenTheTierIsBack() throws Exception {
    var _ = new WorkerMeters(meters, device, table);
    assertThat(gauge()).isZero();
    tier.fault = Fault.AWAY;
    List<WorkerSession> sessions = new ArrayList<>();
    List<Thread> threads = new ArrayList<>();
    for (int i = 0; i < SESSIONS; i++) {
      WorkerSession session = attach();
      sessions.add(session);
      threads.add(Thread.ofVirtual().start(() -> addUntilRefused(session)));
    }
    for (Thread thread : threads) {
      thread.join();
    }
    assertThat(pending.bytes()).isBetween(TOTAL / 3, TOTAL);
    assertThat(gauge()).isEqualTo((double) pending.bytes());
    WorkerSession late = attach();
    sessions.add(late);
    add(late);
    tier.fault = Fault.NONE;
    for (WorkerSession session : sessions) {
      assertThat(session.tokens(0)).as("nobody is starved").isGreaterThanOrEqualTo(CHUNK);
      add(session);
    }
    while (gauge() > 0) {
      Thread.onSpinWait();
    }
    assertThat(pending.bytes()).isZero();
    for (WorkerSession session : sessions) {
      assertThat(session.durableTokens(0))
          .isEqualTo(session.shape().pages(session.tokens(0)) * TOKENS);
    }
    table.close();
  }

  @Test
  void whatClosedSessionsHeldIsFreeForOthers() {
    tier.fault = Fault.AWAY;
    WorkerSession first = attach();
    addUntilRefused(first);
    assertThat(pending.bytes()).isPositive();
    table.detach(first.info().getSessionId(), 0, true);
    assertThat(pending.bytes()).isZero();
    table.close();
  }
}
