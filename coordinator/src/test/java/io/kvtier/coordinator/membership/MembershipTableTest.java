package io.kvtier.coordinator.membership;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.v1.Node;
import io.kvtier.v1.Role;
import java.util.Map;
import org.assertj.core.api.AbstractThrowableAssert;
import org.assertj.core.api.ThrowableAssert.ThrowingCallable;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

final class MembershipTableTest {
  private static final long LEASE_NS = 15_000;

  private final MembershipTable table = new MembershipTable(3, LEASE_NS);

  @ParameterizedTest
  @ValueSource(longs = {0, -5, Long.MAX_VALUE - LEASE_NS / 2})
  void aLeaseHoldsUntilItsLastNanosecond(long startNs) {
    table.register(worker("a"), startNs);

    assertThat(table.expire(startNs + LEASE_NS - 1)).isEmpty();
    table.heartbeat("a", 10, 1, startNs + LEASE_NS - 1);
    assertThat(table.expire(startNs + 2 * LEASE_NS - 2)).isEmpty();
    assertThat(table.expire(startNs + 2 * LEASE_NS - 1)).containsExactly(worker("a"));
    assertThat(table.nodes()).isEmpty();
  }

  @Test
  void aHeartbeatAfterTheLeaseIsRefusedEvenBeforeAnyoneLooked() {
    table.register(worker("a"), 0);

    refused(Code.NOT_FOUND, () -> table.heartbeat("a", 0, 0, LEASE_NS))
        .hasMessageContaining("node a")
        .hasMessageContaining("register again");
    refused(Code.NOT_FOUND, () -> table.heartbeat("b", 0, 0, 0)).hasMessageContaining("node b");
  }

  @Test
  void theEpochRisesWithEachChangeAndOnlyThen() {
    assertThat(table.epoch()).isZero();
    table.register(worker("a"), 0);
    assertThat(table.epoch()).isEqualTo(1);
    table.register(worker("a"), 1);
    table.heartbeat("a", 1, 1, 2);
    assertThat(table.epoch()).isEqualTo(1);
    table.register(worker("a").toBuilder().setTarget("other:1").build(), 3);
    assertThat(table.epoch()).isEqualTo(2);
    table.register(worker("b"), 4);
    assertThat(table.expire(LEASE_NS + 4)).hasSize(2);
    assertThat(table.epoch()).isEqualTo(5);
  }

  @Test
  void theTableIsBoundedButANodeMayReturn() {
    table.register(worker("a"), 0);
    table.register(worker("b"), 0);
    table.register(tier("c"), 0);

    refused(Code.EXHAUSTED, () -> table.register(worker("d"), 1)).hasMessageContaining("3");
    assertThat(table.epoch()).isEqualTo(3);
    table.register(worker("b"), 1);
    assertThat(table.nodes()).containsExactly(worker("a"), worker("b"), tier("c"));
    assertThat(table.count(Role.ROLE_WORKER)).isEqualTo(2);
    assertThat(table.count(Role.ROLE_TIER)).isOne();
  }

  @Test
  void theLeastLoadedWorkerIsTheOneWithFewestSessionsThenTheLowestId() {
    table.register(worker("b"), 0);
    table.register(worker("a"), 0);
    table.register(tier("0-tier"), 0);

    assertThat(table.leastLoadedWorker(_ -> 0, _ -> true)).contains(worker("a"));
    assertThat(table.leastLoadedWorker(Map.of("a:1", 1, "b:1", 0)::get, _ -> true))
        .contains(worker("b"));
    assertThat(table.leastLoadedWorker(_ -> 0, target -> !target.equals("a:1")))
        .contains(worker("b"));
    assertThat(table.leastLoadedWorker(_ -> 0, _ -> false)).isEmpty();
  }

  @Test
  void sessionsThatOnlyTheWorkerKnowsOfCountToo() {
    table.register(worker("a"), 0);
    table.register(worker("b"), 0);
    table.heartbeat("a", 100, 2, 1);
    table.heartbeat("b", 20, 0, 1);

    assertThat(table.leastLoadedWorker(Map.of("a:1", 0, "b:1", 1)::get, _ -> true))
        .contains(worker("b"));
    assertThat(table.bytesUsed(Role.ROLE_WORKER)).isEqualTo(120);
  }

  @ParameterizedTest
  @ValueSource(strings = {"", "a b", "a/b", "ä", "a\n"})
  void anIdOutsideItsAlphabetIsRefused(String id) {
    refused(Code.INVALID, () -> table.register(worker("a").toBuilder().setNodeId(id).build(), 0))
        .hasMessageContaining("node_id");
    refused(Code.INVALID, () -> table.heartbeat(id, 0, 0, 0));
  }

  @Test
  void idsHaveUpTo64Characters() {
    String longest = "x".repeat(64);
    table.register(worker("a").toBuilder().setNodeId(longest).build(), 0);
    refused(
        Code.INVALID,
        () -> table.register(worker("a").toBuilder().setNodeId(longest + "x").build(), 0));
    assertThat(table.nodes()).hasSize(1);
  }

  @ParameterizedTest
  @ValueSource(
      strings = {"", "host", "host:", ":1", "host:0", "host:65536", "host:123456", "h t:1"})
  void aTargetIsHostAndPort(String target) {
    refused(
            Code.INVALID,
            () -> table.register(worker("a").toBuilder().setTarget(target).build(), 0))
        .hasMessageContaining("target");
  }

  @Test
  void rolesAndBytesAreChecked() {
    refused(Code.INVALID, () -> table.register(worker("a").toBuilder().clearRole().build(), 0))
        .hasMessageContaining("role is 0");
    refused(Code.INVALID, () -> table.register(worker("a").toBuilder().setRoleValue(9).build(), 0))
        .hasMessageContaining("role is 9");
    refused(Code.INVALID, () -> table.register(worker("a").toBuilder().setBytesMax(-1).build(), 0))
        .hasMessageContaining("bytes_max is 18446744073709551615");
    table.register(worker("a"), 0);
    refused(Code.INVALID, () -> table.heartbeat("a", -1, 0, 0)).hasMessageContaining("bytes_used");
    refused(Code.INVALID, () -> table.heartbeat("a", 0, -1, 0))
        .hasMessageContaining("sessions is 4294967295");
  }

  private static Node worker(String id) {
    return node(id, Role.ROLE_WORKER);
  }

  private static Node tier(String id) {
    return node(id, Role.ROLE_TIER);
  }

  private static Node node(String id, Role role) {
    return Node.newBuilder().setNodeId(id).setRole(role).setTarget(id + ":1").build();
  }

  private static AbstractThrowableAssert<?, ?> refused(Code code, ThrowingCallable call) {
    return assertThatThrownBy(call)
        .isInstanceOfSatisfying(
            KvtierException.class, e -> assertThat(e.code()).as(e.getMessage()).isEqualTo(code));
  }
}
