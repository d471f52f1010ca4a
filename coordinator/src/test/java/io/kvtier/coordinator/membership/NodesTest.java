package io.kvtier.coordinator.membership;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.v1.Node;
import io.kvtier.v1.NodeState;
import io.kvtier.v1.Role;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.function.Predicate;
import org.assertj.core.api.AbstractThrowableAssert;
import org.assertj.core.api.ThrowableAssert.ThrowingCallable;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** The table of nodes that all coordinators have, and the leases that the leading one keeps. */
final class NodesTest {
  private static final long LEASE_NS = 15_000;

  private final NodeTable table = new NodeTable(3);
  private final NodeLeases leases = new NodeLeases(LEASE_NS);

  @ParameterizedTest
  @ValueSource(longs = {0, -5, Long.MAX_VALUE - LEASE_NS / 2})
  void aLeaseHoldsUntilItsLastNanosecond(long startNs) {
    List<Node> nodes = List.of(worker("a"));
    leases.grant("a", startNs);

    assertThat(leases.lapsed(nodes, startNs + LEASE_NS - 1)).isEmpty();
    leases.renew("a", 10, 1, startNs + LEASE_NS - 1);
    assertThat(leases.lapsed(nodes, startNs + 2 * LEASE_NS - 2)).isEmpty();
    assertThat(leases.lapsed(nodes, startNs + 2 * LEASE_NS - 1)).containsExactly(worker("a"));
  }

  @Test
  void aNodeThatIsSeenFirstGetsAWholeLease() {
    List<Node> nodes = List.of(worker("a"), worker("b"));
    leases.grant("a", 0);
    assertThat(leases.lapsed(nodes, LEASE_NS)).containsExactly(worker("a"));
    assertThat(leases.lapsed(nodes, 2 * LEASE_NS - 1)).containsExactly(worker("a"));
    leases.clear();
    assertThat(leases.lapsed(nodes, 2 * LEASE_NS)).isEmpty();
    assertThat(leases.lapsed(nodes, 3 * LEASE_NS)).hasSize(2);
  }

  @Test
  void noLeaseIsLookedForBeforeTheOldestRunsOut() {
    List<Node> nodes = List.of(worker("a"), worker("b"));
    assertThat(leases.mayHaveLapsed(0)).isTrue();
    leases.grant("a", 0);
    leases.grant("b", 5);
    assertThat(leases.lapsed(nodes, 5)).isEmpty();
    assertThat(leases.mayHaveLapsed(LEASE_NS - 1)).isFalse();
    leases.renew("a", 0, 0, LEASE_NS - 1);
    assertThat(leases.mayHaveLapsed(LEASE_NS)).isTrue();
    assertThat(leases.lapsed(nodes, LEASE_NS)).isEmpty();
    assertThat(leases.mayHaveLapsed(LEASE_NS + 4)).isFalse();
    assertThat(leases.mayHaveLapsed(LEASE_NS + 5)).isTrue();
    assertThat(leases.lapsed(nodes, LEASE_NS + 5)).containsExactly(worker("b"));
    // Until it is removed, it is found each time.
    assertThat(leases.mayHaveLapsed(LEASE_NS + 5)).isTrue();
    leases.clear();
    assertThat(leases.mayHaveLapsed(0)).isTrue();
  }

  @Test
  void theEpochRisesWithEachChangeAndOnlyThen() {
    assertThat(table.epoch()).isZero();
    table.register(worker("a"));
    assertThat(table.epoch()).isEqualTo(1);
    table.register(worker("a"));
    assertThat(table.epoch()).isEqualTo(1);
    table.register(worker("a").toBuilder().setTarget("other:1").build());
    assertThat(table.epoch()).isEqualTo(2);
    table.register(worker("b"));
    table.remove("a");
    table.remove("a");
    assertThat(table.epoch()).isEqualTo(4);
    table.setState("b", NodeState.NODE_STATE_DRAINING);
    table.setState("b", NodeState.NODE_STATE_DRAINING);
    assertThat(table.epoch()).isEqualTo(5);
  }

  @Test
  void aNodeDrainsUntilItIsToldOrComesAsAnother() {
    table.register(worker("a"));
    table.setState("a", NodeState.NODE_STATE_DRAINING);
    table.register(worker("a"));
    assertThat(table.get("a").getState()).isEqualTo(NodeState.NODE_STATE_DRAINING);
    assertThat(table.knows(worker("a"))).isTrue();
    table.register(worker("a").toBuilder().setInstance(7).build());
    assertThat(table.get("a").getState()).isEqualTo(NodeState.NODE_STATE_UNSPECIFIED);
    table.setState("a", NodeState.NODE_STATE_DRAINING);
    table.setState("a", NodeState.NODE_STATE_ACTIVE);
    assertThat(table.get("a").getState()).isEqualTo(NodeState.NODE_STATE_UNSPECIFIED);
    refused(Code.NOT_FOUND, () -> table.setState("b", NodeState.NODE_STATE_DRAINING));
    // What a node tells of its state says nothing.
    table.register(worker("b").toBuilder().setState(NodeState.NODE_STATE_DRAINING).build());
    assertThat(table.get("b")).isEqualTo(worker("b"));
  }

  @Test
  void theTableIsBoundedButANodeMayReturn() {
    table.register(worker("a"));
    table.register(worker("b"));
    table.register(tier("c"));

    refused(Code.EXHAUSTED, () -> table.register(worker("d"))).hasMessageContaining("3");
    assertThat(table.epoch()).isEqualTo(3);
    table.register(worker("b"));
    assertThat(table.nodes()).containsExactly(worker("a"), worker("b"), tier("c"));
    assertThat(table.nodes(Role.ROLE_WORKER)).hasSize(2);
    assertThat(table.nodes(Role.ROLE_TIER)).hasSize(1);
    assertThat(table.workerAt("b:1")).contains(worker("b"));
    assertThat(table.workerAt("c:1")).isEmpty();
  }

  @Test
  void theWorkerIsTheOneWithFewestSessionsThenTheLowestId() {
    Map<String, Integer> none = Map.of("a:1", 0, "b:1", 0);
    Map<String, Integer> some = Map.of("a:1", 1, "b:1", 0);
    assertThat(choose(none, _ -> true, _ -> false)).contains(worker("a"));
    assertThat(choose(some, _ -> true, _ -> false)).contains(worker("b"));
    assertThat(choose(none, node -> !node.equals(worker("a")), _ -> false)).contains(worker("b"));
    assertThat(choose(none, _ -> false, _ -> true)).isEmpty();
  }

  @Test
  void aWorkerWithThePrefixIsPreferredUnlessItHasManyMore() {
    Predicate<Node> isB = worker("b")::equals;
    assertThat(choose(Map.of("a:1", 0, "b:1", 2), _ -> true, isB)).contains(worker("b"));
    assertThat(choose(Map.of("a:1", 0, "b:1", 3), _ -> true, isB)).contains(worker("a"));
    assertThat(choose(Map.of("a:1", 8, "b:1", 12), _ -> true, isB)).contains(worker("b"));
    assertThat(choose(Map.of("a:1", 8, "b:1", 13), _ -> true, isB)).contains(worker("a"));
  }

  @Test
  void aWorkerThatDrainsGetsNothing() {
    List<Node> nodes =
        List.of(
            worker("a").toBuilder().setState(NodeState.NODE_STATE_DRAINING).build(), worker("b"));
    assertThat(leases.chooseWorker(nodes, _ -> 0, _ -> true, _ -> true)).contains(worker("b"));
  }

  @Test
  void sessionsThatOnlyTheWorkerKnowsOfCountToo() {
    leases.renew("a", 100, 2, 1);
    leases.renew("b", 20, 0, 1);

    assertThat(choose(Map.of("a:1", 0, "b:1", 1), _ -> true, _ -> false)).contains(worker("b"));
    assertThat(leases.bytesUsed("a") + leases.bytesUsed("b")).isEqualTo(120);
  }

  @ParameterizedTest
  @ValueSource(strings = {"", "a b", "a/b", "ä", "a\n"})
  void anIdOutsideItsAlphabetIsRefused(String id) {
    refused(Code.INVALID, () -> table.register(worker("a").toBuilder().setNodeId(id).build()))
        .hasMessageContaining("node_id");
    refused(Code.INVALID, () -> leases.renew(id, 0, 0, 0));
  }

  @Test
  void idsHaveUpTo64Characters() {
    String longest = "x".repeat(64);
    table.register(worker("a").toBuilder().setNodeId(longest).build());
    refused(
        Code.INVALID,
        () -> table.register(worker("a").toBuilder().setNodeId(longest + "x").build()));
    assertThat(table.nodes()).hasSize(1);
  }

  @ParameterizedTest
  @ValueSource(
      strings = {"", "host", "host:", ":1", "host:0", "host:65536", "host:123456", "h t:1"})
  void aTargetIsHostAndPort(String target) {
    refused(Code.INVALID, () -> table.register(worker("a").toBuilder().setTarget(target).build()))
        .hasMessageContaining("target");
  }

  @Test
  void rolesAndBytesAreChecked() {
    refused(Code.INVALID, () -> table.register(worker("a").toBuilder().clearRole().build()))
        .hasMessageContaining("role is 0");
    refused(Code.INVALID, () -> table.register(worker("a").toBuilder().setRoleValue(9).build()))
        .hasMessageContaining("role is 9");
    refused(Code.INVALID, () -> table.register(worker("a").toBuilder().setBytesMax(-1).build()))
        .hasMessageContaining("bytes_max is 18446744073709551615");
    refused(Code.INVALID, () -> leases.renew("a", -1, 0, 0)).hasMessageContaining("bytes_used");
    refused(Code.INVALID, () -> leases.renew("a", 0, -1, 0))
        .hasMessageContaining("sessions is 4294967295");
  }

  private Optional<Node> choose(
      Map<String, Integer> sessions, Predicate<Node> eligible, Predicate<Node> preferred) {
    return leases.chooseWorker(
        List.of(tier("0-tier"), worker("a"), worker("b")), sessions::get, eligible, preferred);
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
