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
import io.kvtier.v1.PlanMode;
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
      2 * SHAPE.exactRowBytes() + Staging.leastBytes(LayerStep.stagingSlotBytes(SHAPE), 0);

  private static final long DENSE = 4L * PAGES * Residence.DENSE.deviceBytes(SHAPE.layout());

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

  private static Session tailor(int chosen) {
    Plan.Builder plan = plan(HeadClass.HEAD_CLASS_SPARSE).toBuilder();
    plan.setMode(PlanMode.PLAN_MODE_TAILORKV).setDominantTokensMin(chosen);
    plan.getHeadsBuilderList()
        .forEach(head -> head.setDominantTokensMax(chosen).clearResidualMass());
    return info(HeadClass.HEAD_CLASS_SPARSE, 0).toBuilder()
        .setMode(PlanMode.PLAN_MODE_TAILORKV)
        .setPlan(plan)
        .build();
  }

  private WorkerSession openTailor(SessionTable table, int chosen) {
    Session info = tailor(chosen);
    assertThat(table.attach(info, "", Prefix.NONE)).isZero();
    return table.require(info.getSessionId(), 1);
  }

  /** Sessions that hold all of a device between them, and more each than a fourth would have. */
  private List<WorkerSession> three(SessionTable table, HeadClass headClass) {
    List<WorkerSession> sessions = new ArrayList<>();
    for (int i = 0; i < 3; i++) {
      WorkerSession session = open(table, headClass);
      assertThat(fill(session)).isEqualTo(session.info().getPlan());
      decode(session, TOKENS, TOKENS + 20);
      sessions.add(session);
    }
    assertThat(table.demotions()).isZero();
    return sessions;
  }

  /** TailorKV's method demotes nothing, but others do for it as for any session that comes. */
  @Test
  void whoHoldsMoreThanItsShareDemotesForASessionInTailorKvsMode() {
    long bytes = 3 * (LEAST + DENSE) + 40_000;
    try (CpuDevice small = new CpuDevice(bytes);
        SessionTable table = table(small)) {
      List<WorkerSession> sessions = three(table, HeadClass.HEAD_CLASS_DENSE);
      WorkerSession tailor = openTailor(table, 100);
      assertThat(fill(tailor)).isEqualTo(tailor.info().getPlan());
      assertThat(table.demotions()).isPositive();
      assertThat(tailor.deviceBytes()).isLessThan(bytes / 4);
      sessions.add(tailor);
      sessions.forEach(session -> decode(session, session.tokens(0), session.tokens(0) + 40));
      assertThat(small.memory().bytesUsed()).isLessThanOrEqualTo(bytes);
      sessions
          .subList(0, 3)
          .forEach(session ->
              assertThat(session.deviceBytes() - session.hotSetBytes())
                  .as("nobody gives up more than what it holds beyond its share")
                  .isGreaterThan(bytes / 5));
    }
  }

  /** Hot sets are enough: nothing is demoted. */
  @Test
  void hotSetsGiveWayToASessionInTailorKvsMode() {
    long bytes = 3 * (LEAST + SKETCHES + 150_000);
    try (CpuDevice small = new CpuDevice(bytes);
        SessionTable table = table(small)) {
      List<WorkerSession> sessions = three(table, HeadClass.HEAD_CLASS_SPARSE);
      sessions.forEach(session -> decode(session, TOKENS + 20, TOKENS + 60));
      long free = small.memory().bytesFree();
      WorkerSession tailor = openTailor(table, 100);
      assertThat(fill(tailor)).isEqualTo(tailor.info().getPlan());
      assertThat(tailor.deviceBytes()).isGreaterThan(free);
      assertThat(table.demotions()).isZero();
      sessions.forEach(session -> decode(session, TOKENS + 60, TOKENS + 70));
      decode(tailor, TOKENS, TOKENS + 10);
    }
  }

  /** It holds what it holds, however much that is: its method knows nothing else. */
  @Test
  void aSessionInTailorKvsModeDemotesNothing() {
    Session info = tailor(16);
    Plan.Builder plan = info.getPlan().toBuilder();
    plan.getHeadsBuilderList()
        .forEach(head ->
            head.setHeadClass(HeadClass.HEAD_CLASS_DENSE).setBits(2).clearDominantTokensMax());
    Session dense = info.toBuilder().setPlan(plan).build();
    try (CpuDevice small = new CpuDevice(400_000 + 2 * LEAST);
        SessionTable table = table(small)) {
      assertThat(table.attach(dense, "", Prefix.NONE)).isZero();
      WorkerSession tailor = table.require(dense.getSessionId(), 1);
      assertThat(fill(tailor)).isEqualTo(dense.getPlan());
      long held = tailor.deviceBytes();
      assertThat(held).isGreaterThan(small.memory().bytesMax() / 3);
      assertThatThrownBy(
              () -> {
                while (true) {
                  assertThat(open(table, HeadClass.HEAD_CLASS_SPARSE).tokens(0)).isZero();
                }
              })
          .isInstanceOfSatisfying(
              KvtierException.class, e -> assertThat(e.code()).isEqualTo(Code.EXHAUSTED));
      assertThat(table.size()).isGreaterThan(1);
      assertThat(table.demotions()).isZero();
      assertThat(tailor.deviceBytes()).isEqualTo(held);
      float[] row = new float[KV_ROW];
      assertThat(tailor.step(0, TOKENS, 1, gaussian(Q_ROW), row, row, NO_HINT).output())
          .hasSize(Q_ROW);
    }
  }

  /** All or nothing is what it needs: who wants more than a share gets it only if it is free. */
  @Test
  void nobodyDemotesForASessionThatWantsMoreThanItsShare() {
    long bytes = 3 * (LEAST + DENSE) + 40_000;
    try (CpuDevice small = new CpuDevice(bytes);
        SessionTable table = table(small)) {
      List<WorkerSession> sessions = three(table, HeadClass.HEAD_CLASS_DENSE);
      int chosen = (int) (bytes / 3 / (2 * KV_ROW * Short.BYTES));
      assertThatThrownBy(() -> openTailor(table, chosen))
          .isInstanceOfSatisfying(
              KvtierException.class, e -> assertThat(e.code()).isEqualTo(Code.EXHAUSTED))
          .hasMessageStartingWith("device memory is full");
      assertThat(table.demotions()).isZero();
      assertThat(table.size()).isEqualTo(3);
      sessions.forEach(session -> decode(session, TOKENS + 20, TOKENS + 30));
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
