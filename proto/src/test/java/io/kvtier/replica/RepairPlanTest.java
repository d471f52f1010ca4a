package io.kvtier.replica;

import static org.assertj.core.api.Assertions.assertThat;

import io.kvtier.page.PageKey;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.stream.IntStream;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;

class RepairPlanTest {
  private static final ReplicaConfig CONFIG = ReplicaConfig.of(2, 2, Duration.ofSeconds(1));
  private static final List<PageKey> KEYS =
      IntStream.range(0, 100).mapToObj(i -> new PageKey(9, 8, 7, i)).toList();
  private static final Rendezvous THREE = new Rendezvous(1, List.of("a", "b", "c"));
  private static final Rendezvous TWO = new Rendezvous(2, List.of("a", "b"));

  private final RepairPlan plan = new RepairPlan(CONFIG, new ReplicaCounts());

  private List<PageKey> due() {
    List<PageKey> due = new ArrayList<>();
    for (RepairQueue.Repair next = plan.poll(0); next != null; next = plan.poll(0)) {
      due.add(next.key());
    }
    return due;
  }

  private static List<PageKey> withNewHome() {
    return KEYS.stream().filter(key -> TWO.hasNewHome(key, 2, THREE)).toList();
  }

  @Test
  void whatWasStoredHereIsRepairedWhenItHasANewHome() {
    assertThat(plan.members(THREE)).isTrue();
    plan.remember(KEYS, THREE);
    assertThat(plan.members(TWO)).isTrue();
    assertThat(due()).containsExactlyInAnyOrderElementsOf(withNewHome()).isNotEmpty();
  }

  @Test
  void whatWasPlacedByFormerMembersIsRepairedToo() {
    assertThat(plan.members(THREE)).isTrue();
    assertThat(plan.members(TWO)).isTrue();
    plan.remember(KEYS, THREE);
    assertThat(due()).containsExactlyInAnyOrderElementsOf(withNewHome());
    plan.remember(KEYS, TWO);
    assertThat(due()).isEmpty();
  }

  @Test
  void whatIsHeldHereIsRepairedWhoeverStoredIt() {
    assertThat(plan.members(THREE)).isTrue();
    plan.hold(KEYS);
    assertThat(plan.members(TWO)).isTrue();
    assertThat(due()).containsExactlyInAnyOrderElementsOf(withNewHome());
  }

  @Test
  void whatNobodyHereHoldsAnyMoreIsNotRepaired() {
    assertThat(plan.members(THREE)).isTrue();
    plan.hold(KEYS);
    plan.remember(KEYS, THREE);
    plan.hold(KEYS.subList(0, 50));
    plan.letGo(KEYS);
    assertThat(plan.members(TWO)).isTrue();
    assertThat(due())
        .containsExactlyInAnyOrderElementsOf(
            withNewHome().stream().filter(KEYS.subList(0, 50)::contains).toList());
  }

  @Test
  void aRepairThatWaitsEndsWithTheLastHold() {
    plan.hold(KEYS);
    plan.offer(KEYS.getFirst(), 0);
    plan.offer(KEYS.getLast(), 0);
    plan.letGo(KEYS.subList(0, 1));
    assertThat(due()).containsExactly(KEYS.getLast());
  }

  @Test
  void aPageIsCopiedFromWhereItIsToAllItsHomes() {
    Map<String, Set<PageKey>> nodes = new HashMap<>();
    THREE.nodes().forEach(node -> nodes.put(node, new HashSet<>()));
    PageKey key = KEYS.getFirst();
    List<String> ranked = THREE.homes(key, 3);
    nodes.put(ranked.get(2), new HashSet<>(Set.of(key)));
    boolean done =
        plan.mend(
            THREE,
            key,
            new RepairPlan.Copier<Integer>() {
              @Override
              public @Nullable Integer read(String node, PageKey asked) {
                return nodes.getOrDefault(node, Set.of()).contains(asked) ? 1 : null;
              }

              @Override
              public boolean write(String node, PageKey asked, Integer page) {
                return nodes.computeIfAbsent(node, _ -> new HashSet<>()).add(asked);
              }
            });
    assertThat(done).isTrue();
    assertThat(nodes.values()).allMatch(held -> held.contains(key));
  }
}
