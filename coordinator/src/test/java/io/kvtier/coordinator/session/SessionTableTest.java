package io.kvtier.coordinator.session;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.google.protobuf.ByteString;
import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.v1.Ancestor;
import io.kvtier.v1.MoveSession;
import io.kvtier.v1.Plan;
import io.kvtier.v1.Session;
import io.kvtier.v1.SessionRecord;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import org.assertj.core.api.AbstractThrowableAssert;
import org.assertj.core.api.ThrowableAssert.ThrowingCallable;
import org.junit.jupiter.api.Test;

final class SessionTableTest {
  private static final Plan PLAN = Plan.newBuilder().setTokens(100).build();

  private final SessionTable table = new SessionTable();

  @Test
  void theBoundCountsReservations() {
    Reservations reservations = new Reservations(3);
    reservations.reserve("a", "w1", 1);
    reservations.reserve("b", "w1", 1);

    refused(Code.EXHAUSTED, () -> reservations.reserve("c", "w1", 1))
        .hasMessageContaining("3")
        .hasMessageContaining("sessions_max");
    assertThat(reservations.countOn("w1")).isEqualTo(2);
    assertThat(reservations.contains("c")).isFalse();

    reservations.release("a");
    reservations.release("a");
    assertThat(reservations.countOn("w1")).isOne();
    reservations.reserve("c", "w2", 1);
    reservations.release("b");
    reservations.release("c");
    assertThat(reservations.countOn("w1") + reservations.countOn("w2")).isZero();
  }

  @Test
  void anIdIsTakenOnceAndARequestOpensOnce() {
    table.open(record("a", "w1").toBuilder().setOpenRequest("r").build());
    refused(Code.EXISTS, () -> table.open(record("a", "w2")));
    SessionRecord again = record("b", "w2").toBuilder().setOpenRequest("r").build();

    assertThat(table.open(again).getSession().getSessionId()).isEqualTo("a");
    assertThat(table.countOn("w2")).isZero();
    assertThat(table.count()).isOne();

    table.end("a", 1);
    assertThat(table.ofRequest("r")).isEmpty();
    assertThat(table.open(again)).isEqualTo(again);
  }

  @Test
  void listsOldestFirstWhateverHappensToThem() {
    table.open(record("b", "w1"));
    table.open(record("a", "w1"));
    table.setPlan("b", 1, PLAN);
    table.move(move("b", 1, 2, "w2", ""));

    assertThat(table.list())
        .extracting(record -> record.getSession().getSessionId())
        .containsExactly("b", "a");
  }

  @Test
  void aPlanGivenByHandIsKept() {
    SessionRecord given =
        record("a", "w1").toBuilder()
            .setPlanGiven(true)
            .setSession(session("a", "w1").setPlan(PLAN))
            .build();
    table.open(given);

    assertThat(table.setPlan("a", 1, Plan.getDefaultInstance())).isEqualTo(given);
  }

  @Test
  void aMoveRaisesTheEpochAndTheFormerIsRefused() {
    table.open(record("a", "w1"));
    SessionRecord moved = table.move(move("a", 1, 3, "w2", "r1"));

    assertThat(moved.getSession().getEpoch()).isEqualTo(3);
    assertThat(table.countOn("w1")).isZero();
    assertThat(table.countOn("w2")).isOne();
    // The same request again changes nothing, another one of the old epoch is refused.
    assertThat(table.move(move("a", 1, 9, "w3", "r1"))).isEqualTo(moved);
    refused(Code.PRECONDITION, () -> table.move(move("a", 1, 9, "w3", "r2")))
        .hasMessageContaining("epoch is 1")
        .hasMessageContaining("epoch 3");
    refused(Code.PRECONDITION, () -> table.move(move("a", 1, 9, "w3", "")));
    refused(Code.PRECONDITION, () -> table.move(move("a", 3, 3, "w3", "r3")));
    assertThat(table.get("a")).isEqualTo(moved);
    table.move(move("a", 3, 4, "w1", "r2"));
    refused(Code.PRECONDITION, () -> table.move(move("a", 1, 9, "w3", "r1")));
  }

  @Test
  void anotherEpochIsRefusedWithBoth() {
    table.open(record("a", "w1"));
    List<ThrowingCallable> calls =
        List.of(
            () -> table.get("a", 7),
            () -> table.end("a", 7),
            () -> table.setPlan("a", 7, PLAN),
            () -> table.markProfiled("a", 7),
            () -> table.move(move("a", 7, 8, "w2", "r")));
    for (ThrowingCallable call : calls) {
      refused(Code.PRECONDITION, call)
          .hasMessageContaining("epoch is 7")
          .hasMessageContaining("epoch 1");
    }
    assertThat(table.list()).containsExactly(record("a", "w1"));
    assertThat(table.countOn("w1")).isOne();
  }

  @Test
  void anIdOfNoBoundIsRefusedBeforeItIsRepeated() {
    refused(Code.INVALID, () -> table.get("")).hasMessageContaining("1..64");
    refused(Code.INVALID, () -> table.get("x".repeat(65))).hasMessageContaining("65");
  }

  @Test
  void workersAreKnownByThePrefixesOfTheirSessions() {
    ByteString hashes = ByteString.copyFrom(new byte[48]);
    ByteString first = hashes.substring(0, 16);
    table.open(record("a", "w1").toBuilder().setPrefixHashes(hashes).build());
    table.open(record("b", "w2"));

    assertThat(table.sharesPrefix(first, "w1")).isTrue();
    assertThat(table.sharesPrefix(first, "w2")).isFalse();
    assertThat(table.sharesPrefix(ByteString.EMPTY, "w1")).isFalse();
    table.move(move("a", 1, 2, "w2", ""));
    assertThat(table.sharesPrefix(first, "w1")).isFalse();
    assertThat(table.sharesPrefix(first, "w2")).isTrue();
    table.end("a", 2);
    assertThat(table.sharesPrefix(first, "w2")).isFalse();
  }

  @Test
  void aSessionsCurvesAreTakenInOnce() {
    table.open(record("a", "w1"));
    assertThat(table.markProfiled("a", 1)).isTrue();
    assertThat(table.markProfiled("a", 1)).isFalse();
  }

  /** A worker counts who uses which page among the sessions that it has had from the first on. */
  @Test
  void pagesOfKinAreNeededUnlessBothAreWhereTheyWereOpened() {
    SessionRecord parent = table.open(record("a", "w1"));
    SessionRecord.Builder child = record("b", "w1").toBuilder();
    child.getSessionBuilder().addAncestors(Ancestor.newBuilder().setSessionId("a").setTokens(64));
    table.open(child.build());
    table.open(record("c", "w2"));
    assertThat(table.pagesNeeded(parent)).isFalse();
    table.move(move("b", 1, 2, "w1", ""));
    assertThat(table.pagesNeeded(parent)).as("the child was read back from them").isTrue();
    assertThat(table.pagesNeeded(table.get("b"))).isTrue();
    table.end("b", 2);
    assertThat(table.pagesNeeded(parent)).as("others are no kin").isFalse();
    SessionRecord moved = table.move(move("a", 1, 2, "w1", ""));
    table.open(child.build());
    assertThat(table.pagesNeeded(moved)).as("the parent was").isTrue();
  }

  /** Counts per worker must equal a recount, whatever the order of calls. */
  @Test
  void countsFollowEveryOrderOfCalls() {
    long seed = System.nanoTime();
    System.out.println("SessionTableTest seed " + seed);
    Random random = new Random(seed);
    List<SessionRecord> open = new ArrayList<>();
    for (int i = 0; i < 5_000; i++) {
      int choice = random.nextInt(3);
      if (choice == 0 || open.isEmpty()) {
        open.add(table.open(record("s" + i, "w" + random.nextInt(3))));
      } else {
        int at = random.nextInt(open.size());
        Session chosen = open.get(at).getSession();
        if (choice == 1) {
          open.set(
              at,
              table.move(
                  move(
                      chosen.getSessionId(),
                      chosen.getEpoch(),
                      chosen.getEpoch() + 1,
                      "w" + random.nextInt(3),
                      "")));
        } else {
          assertThat(table.end(chosen.getSessionId(), chosen.getEpoch()))
              .isEqualTo(open.remove(at));
        }
      }
      assertThat(table.count()).isEqualTo(open.size());
      for (String target : List.of("w0", "w1", "w2")) {
        assertThat(table.countOn(target)).isEqualTo(table.on(target).size());
      }
    }
    assertThat(table.list()).isEqualTo(open);
  }

  private static MoveSession move(String id, long epoch, long to, String target, String request) {
    return MoveSession.newBuilder()
        .setSessionId(id)
        .setEpoch(epoch)
        .setNewEpoch(to)
        .setWorkerTarget(target)
        .setRequestId(request)
        .build();
  }

  private static SessionRecord record(String id, String target) {
    return SessionRecord.newBuilder().setSession(session(id, target)).build();
  }

  private static Session.Builder session(String id, String target) {
    return Session.newBuilder().setSessionId(id).setEpoch(1).setWorkerTarget(target);
  }

  private static AbstractThrowableAssert<?, ?> refused(Code code, ThrowingCallable call) {
    return assertThatThrownBy(call)
        .isInstanceOfSatisfying(
            KvtierException.class, e -> assertThat(e.code()).as(e.getMessage()).isEqualTo(code));
  }
}
