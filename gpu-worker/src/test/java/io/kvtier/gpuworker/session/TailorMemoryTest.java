package io.kvtier.gpuworker.session;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.v1.HeadClass;
import io.kvtier.v1.HeadPlan;
import io.kvtier.v1.Plan;
import io.kvtier.v1.PlanMode;
import io.kvtier.v1.Session;
import java.util.ArrayList;
import java.util.List;
import java.util.UUID;
import org.junit.jupiter.api.Test;

/** What TailorKV's method holds counts as if it lay on the device, and is bounded. */
class TailorMemoryTest extends SessionFixture {
  private static final int TOKENS = 1000;
  private static final long ROW = 512;

  /**
   * Both layers' first and last rows, two buffers of 8 channels of 2 heads, and 100 chosen rows.
   */
  private static final long SPARSE = bytes(TOKENS);

  private static long bytes(int tokens) {
    return 2 * 64 * ROW + 64L * tokens + 100 * ROW;
  }

  private static Session tailor(int chosen, long deviceBytesMax) {
    return info(HeadClass.HEAD_CLASS_SPARSE, deviceBytesMax).toBuilder()
        .setMode(PlanMode.PLAN_MODE_TAILORKV)
        .setPlan(sparse(chosen))
        .build();
  }

  private static Plan sparse(int chosen) {
    Plan.Builder plan = plan(HeadClass.HEAD_CLASS_SPARSE).toBuilder();
    plan.setMode(PlanMode.PLAN_MODE_TAILORKV).setDominantTokensMin(chosen);
    plan.getHeadsBuilderList()
        .forEach(head -> head.setDominantTokensMax(chosen).clearResidualMass());
    return plan.build();
  }

  private static void refusedWith(Runnable call, String... numbers) {
    assertThatThrownBy(call::run)
        .isInstanceOfSatisfying(
            KvtierException.class, e -> assertThat(e.code()).isEqualTo(Code.EXHAUSTED))
        .hasMessageContainingAll(numbers);
  }

  @Test
  void theBytesOfTheMethodAreUsedOnTheDeviceUntilTheSessionEnds() {
    WorkerSession session = filled(tailor(100, 0), TOKENS);
    assertThat(session.deviceBytes()).isEqualTo(SPARSE);
    assertThat(device.memory().bytesUsed()).isEqualTo(SPARSE);
    Session child = session.info().toBuilder().setSessionId(UUID.randomUUID().toString()).build();
    WorkerSession fork = session.fork(child);
    assertThat(device.memory().bytesUsed()).isEqualTo(2 * SPARSE);
    fork.close();
    assertThat(device.memory().bytesUsed()).isEqualTo(SPARSE);
    session.close();
  }

  @Test
  void denseLayersAreCountedToo() {
    Session info = tailor(100, 0);
    Plan.Builder plan = info.getPlan().toBuilder();
    for (int head = 0; head < 2; head++) {
      plan.setHeads(
          head,
          HeadPlan.newBuilder()
              .setKvHead(head)
              .setHeadClass(HeadClass.HEAD_CLASS_DENSE)
              .setBits(1));
    }
    WorkerSession session = filled(info.toBuilder().setPlan(plan).build(), TOKENS);
    long dense = 128 * ROW + (TOKENS - 128) * (256 / 8 + 4 * 4);
    assertThat(session.deviceBytes()).isEqualTo(SPARSE - 64 * ROW + dense);
    assertThat(device.memory().bytesUsed()).isEqualTo(session.deviceBytes());
    session.close();
  }

  @Test
  void aPlanBeyondTheSessionsBoundIsRefused() {
    refusedWith(
        () -> open(tailor(3000, 192_000)), "device_bytes_max is 192000", "takes 1536000 under");
    Session byItself = tailor(100, SPARSE - 1).toBuilder().clearPlan().build();
    WorkerSession session = open(byItself);
    for (int layer = 0; layer < 2; layer++) {
      float[] rows = gaussian(TOKENS * KV_ROW);
      assertThat(session.append(layer, 0, TOKENS, rows, rows)).isEqualTo(TOKENS);
    }
    refusedWith(
        () -> session.finish(TOKENS, (i, t, c, f, p) -> sparse(100)),
        "device_bytes_max is " + (SPARSE - 1),
        "takes " + SPARSE);
    assertThat(device.memory().bytesUsed()).isZero();
    assertThat(session.finish(TOKENS, (i, t, c, f, p) -> sparse(99))).isEqualTo(sparse(99));
    session.close();
  }

  /** The window moves on: it grows by its channels alone. */
  @Test
  void tokensBeyondTheSessionsBoundAreRefusedAndChangeNothing() {
    WorkerSession session = filled(tailor(100, bytes(TOKENS + 2)), TOKENS);
    float[] query = gaussian(Q_ROW);
    float[] output = step(session, TOKENS, query).output();
    assertThat(step(session, TOKENS + 1, query).output()).hasSameSizeAs(output);
    assertThat(session.deviceBytes()).isEqualTo(bytes(TOKENS + 2));
    refusedWith(() -> step(session, TOKENS + 2, query), "takes " + bytes(TOKENS + 3));
    assertThat(session.tokens(0)).isEqualTo(TOKENS + 2);
    assertThat(device.memory().bytesUsed()).isEqualTo(bytes(TOKENS + 2));
    session.close();
  }

  @Test
  void sessionsThatTheDeviceHasNoRoomForAreRefused() {
    int chosen = (30 << 20) / (int) ROW;
    List<WorkerSession> sessions = new ArrayList<>();
    sessions.add(open(tailor(chosen, 0)));
    sessions.add(open(tailor(chosen, 0)));
    refusedWith(
        () -> open(tailor(chosen, 0)), "device memory is full", "62914560 of 67108864", "31457280");
    sessions.removeFirst().close();
    sessions.add(open(tailor(chosen, 0)));
    sessions.forEach(WorkerSession::close);
  }
}
