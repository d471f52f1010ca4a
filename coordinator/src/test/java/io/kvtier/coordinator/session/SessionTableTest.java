package io.kvtier.coordinator.session;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.v1.Plan;
import io.kvtier.v1.Session;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import org.assertj.core.api.AbstractThrowableAssert;
import org.assertj.core.api.ThrowableAssert.ThrowingCallable;
import org.junit.jupiter.api.Test;

final class SessionTableTest {
  private static final Plan PLAN = Plan.newBuilder().setTokens(100).build();

  private final SessionTable table = new SessionTable(3);

  @Test
  void aReservedSessionTakesAPlaceButIsNotVisible() {
    table.reserve(session("a", "w1"));

    assertThat(table.list()).isEmpty();
    assertThat(table.count()).isZero();
    assertThat(table.countOn("w1")).isOne();
    refused(Code.NOT_FOUND, () -> table.get("a")).hasMessageContaining("a");

    table.commit("a", 0);
    assertThat(table.get("a")).isEqualTo(session("a", "w1"));
    assertThat(table.countOn("w1")).isOne();
  }

  @Test
  void anAbandonedReservationLeavesNothing() {
    table.reserve(session("a", "w1"));
    table.abandon("a");
    table.abandon("a");

    assertThat(table.countOn("w1")).isZero();
    assertThatThrownBy(() -> table.commit("a", 0)).isInstanceOf(IllegalStateException.class);
  }

  @Test
  void theBoundCountsReservations() {
    open("a", "w1");
    open("b", "w1");
    table.reserve(session("c", "w1"));

    refused(Code.EXHAUSTED, () -> table.reserve(session("d", "w1")))
        .hasMessageContaining("3")
        .hasMessageContaining("sessions_max");
    refused(Code.EXHAUSTED, () -> table.reserveFork("a", 1, "d", 1));
    assertThat(table.countOn("w1")).isEqualTo(3);

    table.abandon("c");
    table.reserve(session("d", "w1"));
  }

  @Test
  void anIdIsTakenOnce() {
    table.reserve(session("a", "w1"));
    refused(Code.EXISTS, () -> table.reserve(session("a", "w2")));
    table.commit("a", 0);
    refused(Code.EXISTS, () -> table.reserve(session("a", "w2")));
    assertThat(table.countOn("w2")).isZero();
  }

  @Test
  void listsOldestFirstInTheOrderOfCommits() {
    table.reserve(session("a", "w1"));
    open("b", "w1");
    table.commit("a", 0);
    table.setPlan("b", 1, PLAN);

    assertThat(table.list()).extracting(Session::getSessionId).containsExactly("b", "a");
  }

  @Test
  void aForkHasItsParentsWorkerAndPlan() {
    open("a", "w1");
    table.setPlan("a", 1, PLAN);

    Session child = table.reserveFork("a", 1, "b", 1);
    table.commit("b", 0);

    assertThat(child).isEqualTo(table.get("b"));
    assertThat(child.getPlan()).isEqualTo(PLAN);
    assertThat(child.getWorkerTarget()).isEqualTo("w1");
    assertThat(table.givenPlan("b", 1)).isEmpty();
  }

  @Test
  void aPlanGivenByHandIsKeptAndInherited() {
    table.reserve(session("a", "w1").toBuilder().setPlan(PLAN).build());
    table.commit("a", 0);
    table.reserveFork("a", 1, "b", 1);
    table.commit("b", 0);

    assertThat(table.givenPlan("a", 1)).contains(PLAN);
    assertThat(table.givenPlan("b", 1)).contains(PLAN);
    assertThatThrownBy(() -> table.setPlan("b", 1, Plan.getDefaultInstance()))
        .isInstanceOf(IllegalStateException.class);
  }

  @Test
  void anotherEpochIsRefusedWithBoth() {
    open("a", "w1");
    List<ThrowingCallable> calls =
        List.of(
            () -> table.get("a", 7),
            () -> table.remove("a", 7),
            () -> table.setPlan("a", 7, PLAN),
            () -> table.givenPlan("a", 7),
            () -> table.reserveFork("a", 7, "b", 1));
    for (ThrowingCallable call : calls) {
      refused(Code.PRECONDITION, call)
          .hasMessageContaining("epoch is 7")
          .hasMessageContaining("epoch 1");
    }
    assertThat(table.list()).containsExactly(session("a", "w1"));
    assertThat(table.countOn("w1")).isOne();
  }

  @Test
  void anIdOfNoBoundIsRefusedBeforeItIsRepeated() {
    refused(Code.INVALID, () -> table.get("")).hasMessageContaining("1..64");
    refused(Code.INVALID, () -> table.get("x".repeat(65))).hasMessageContaining("65");
  }

  /** Counts per worker must equal a recount, whatever the order of calls. */
  @Test
  void countsFollowEveryOrderOfCalls() {
    long seed = System.nanoTime();
    System.out.println("SessionTableTest seed " + seed);
    Random random = new Random(seed);
    SessionTable sessions = new SessionTable(8);
    List<String> reserved = new ArrayList<>();
    List<Session> open = new ArrayList<>();
    for (int i = 0; i < 5_000; i++) {
      switch (random.nextInt(4)) {
        case 0 -> {
          if (reserved.size() + open.size() < 8) {
            sessions.reserve(session("s" + i, "w" + random.nextInt(3)));
            reserved.add("s" + i);
          } else {
            String id = "s" + i;
            refused(Code.EXHAUSTED, () -> sessions.reserve(session(id, "w0")));
          }
        }
        case 1 -> {
          if (!reserved.isEmpty()) {
            String id = reserved.remove(random.nextInt(reserved.size()));
            sessions.commit(id, 0);
            open.add(sessions.get(id));
          }
        }
        case 2 -> {
          if (!reserved.isEmpty()) {
            sessions.abandon(reserved.remove(random.nextInt(reserved.size())));
          }
        }
        default -> {
          if (!open.isEmpty()) {
            Session gone = open.remove(random.nextInt(open.size()));
            assertThat(sessions.remove(gone.getSessionId(), 1)).isEqualTo(gone);
          }
        }
      }
      assertThat(sessions.list()).isEqualTo(open);
      int onAll = sessions.countOn("w0") + sessions.countOn("w1") + sessions.countOn("w2");
      assertThat(onAll).isEqualTo(reserved.size() + open.size());
    }
  }

  private void open(String id, String target) {
    table.reserve(session(id, target));
    table.commit(id, 0);
  }

  private static Session session(String id, String target) {
    return Session.newBuilder().setSessionId(id).setEpoch(1).setWorkerTarget(target).build();
  }

  private static AbstractThrowableAssert<?, ?> refused(Code code, ThrowingCallable call) {
    return assertThatThrownBy(call)
        .isInstanceOfSatisfying(
            KvtierException.class, e -> assertThat(e.code()).as(e.getMessage()).isEqualTo(code));
  }
}
