package io.kvtier.gpuworker.session;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.gpuworker.cpu.CpuDevice;
import io.kvtier.gpuworker.device.LayerShape;
import io.kvtier.gpuworker.trace.StepListener;
import io.kvtier.page.Residence;
import io.kvtier.v1.HeadClass;
import io.kvtier.v1.Plan;
import io.kvtier.v1.Session;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Test;

/** Sessions without bounds of their own that share a device which is full. */
class SharedDeviceTest extends SessionFixture {
  private static final int SESSIONS = 12;
  private static final int TOKENS = 1500;
  private static final int PAGES = (TOKENS - 64) / 64;
  private static final LayerShape SHAPE = Sessions.shapeOf(info(HeadClass.HEAD_CLASS_SPARSE, 0));

  /** What a session takes at least. */
  private static final long LEAST =
      2 * SHAPE.exactRowBytes() + Staging.leastBytes(LayerStep.stagingSlotBytes(SHAPE));

  private static final long SKETCHES =
      4L * PAGES * Residence.TWO_PLANES.deviceBytes(SHAPE.layout());

  private SessionTable table(CpuDevice small) {
    SessionLimits limits = new SessionLimits(1 << 20, 2_000_000_000L);
    return new SessionTable(
        small, id -> tier, 100, limits, new PendingBytes(16 << 20), StepListener.NONE);
  }

  /** A session whose plan has a hot set for all rows that it could ever choose. */
  private WorkerSession open(SessionTable table, HeadClass headClass) {
    Session info = info(headClass, 0);
    Plan plan = info.getPlan().toBuilder().setHotSetBytes(1 << 20).build();
    info = info.toBuilder().setPlan(plan).build();
    assertThat(table.attach(info, "", Prefix.NONE)).isZero();
    return table.require(info.getSessionId(), 1);
  }

  private Plan fill(WorkerSession session) {
    for (int layer = 0; layer < 2; layer++) {
      float[] rows = gaussian(TOKENS * KV_ROW);
      assertThat(session.append(layer, 0, TOKENS, rows, rows)).isEqualTo(TOKENS);
    }
    return session.finish(TOKENS, (i, t, c, f, d) -> i.getPlan());
  }

  private void decode(WorkerSession session, int from, int to) {
    float[] row = new float[KV_ROW];
    for (int position = from; position < to; position++) {
      for (int layer = 0; layer < 2; layer++) {
        assertThat(session.step(layer, position, 1, gaussian(Q_ROW), row, row, NO_HINT).output())
            .hasSize(Q_ROW);
      }
    }
  }

  /** The first sessions' hot sets fill the device before the last ones come. */
  @Test
  void hotSetsGiveWayAlikeAndNoStepIsRefused() {
    long hot = 100_000;
    long bytes = SESSIONS * (LEAST + SKETCHES + hot);
    try (CpuDevice small = new CpuDevice(bytes);
        SessionTable table = table(small)) {
      List<WorkerSession> sessions = new ArrayList<>();
      for (int i = 0; i < SESSIONS; i++) {
        WorkerSession session = open(table, HeadClass.HEAD_CLASS_SPARSE);
        assertThat(fill(session)).isEqualTo(session.info().getPlan());
        decode(session, TOKENS, TOKENS + 20);
        sessions.add(session);
      }
      for (WorkerSession session : sessions) {
        decode(session, TOKENS + 20, TOKENS + 40);
      }
      long[] hotSets = sessions.stream().mapToLong(WorkerSession::hotSetBytes).sorted().toArray();
      long median = hotSets[SESSIONS / 2];
      assertThat(median).isGreaterThan(hot / 4);
      assertThat(hotSets[0]).isGreaterThan(median / 4);
      assertThat(small.memory().bytesUsed()).isLessThanOrEqualTo(bytes);
      assertThat(table.demotions()).isZero();
      // What the others leave goes to those that stay.
      for (int i = 1; i < SESSIONS; i++) {
        table.detach(sessions.get(i).info().getSessionId());
      }
      decode(sessions.getFirst(), TOKENS + 40, TOKENS + 60);
      assertThat(sessions.getFirst().hotSetBytes()).isGreaterThan(2 * median);
    }
  }

  /** Dense heads of those that were first become sketches, for sessions to come. */
  @Test
  void whoHoldsMoreThanItsShareDemotesForThoseThatCome() {
    long bytes = SESSIONS * (LEAST + SKETCHES + 40_000);
    try (CpuDevice small = new CpuDevice(bytes);
        SessionTable table = table(small)) {
      List<WorkerSession> sessions = new ArrayList<>();
      for (int i = 0; i < SESSIONS; i++) {
        WorkerSession session = open(table, HeadClass.HEAD_CLASS_DENSE);
        assertThat(fill(session).getHeadsCount()).isEqualTo(4);
        sessions.add(session);
      }
      assertThat(table.demotions()).isPositive();
      sessions.forEach(session -> decode(session, TOKENS, TOKENS + 70));
      assertThat(small.memory().bytesUsed()).isLessThanOrEqualTo(bytes);
    }
  }

  @Test
  void aSessionThatCannotHaveTheLeastIsRefusedWhenItIsOpened() {
    try (CpuDevice small = new CpuDevice(3 * LEAST + LEAST / 2);
        SessionTable table = table(small)) {
      for (int i = 0; i < 3; i++) {
        WorkerSession session = open(table, HeadClass.HEAD_CLASS_SPARSE);
        assertThat(fill(session).getHeadsCount()).isEqualTo(4);
      }
      assertThatThrownBy(() -> open(table, HeadClass.HEAD_CLASS_SPARSE))
          .isInstanceOfSatisfying(
              KvtierException.class, e -> assertThat(e.code()).isEqualTo(Code.EXHAUSTED))
          .hasMessageMatching(
              "device memory is full: [0-9]+ of %d bytes are used, %d more are needed; .*"
                  .formatted(3 * LEAST + LEAST / 2, LEAST));
      assertThat(table.size()).isEqualTo(3);
    }
  }

  @Test
  void aLevelGivesAllAsMuchAsThereIsAndNoneMoreThanItWants() {
    assertThat(DevicePool.level(new long[] {5, 100, 40}, 200)).isEqualTo(Long.MAX_VALUE);
    assertThat(DevicePool.level(new long[] {5, 100, 40}, 85)).isEqualTo(40);
    assertThat(DevicePool.level(new long[] {5, 100, 40}, 65)).isEqualTo(30);
    assertThat(DevicePool.level(new long[] {50, 100, 40}, 30)).isEqualTo(10);
    assertThat(DevicePool.level(new long[] {50, 100, 40}, -1)).isZero();
    assertThat(DevicePool.level(new long[0], 10)).isEqualTo(Long.MAX_VALUE);
  }
}
