package io.kvtier.replica;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.kvtier.KvtierException;
import io.kvtier.page.PageKey;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.SplittableRandom;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** Homes are distinct, agreed upon, even, and move no more than membership does. */
class RendezvousTest {
  private static final int KEYS = 6000;

  private static List<String> nodes(int count) {
    List<String> nodes = new ArrayList<>();
    for (int i = 0; i < count; i++) {
      nodes.add("tier-" + i);
    }
    return nodes;
  }

  private static List<PageKey> keys(long seed) {
    SplittableRandom random = new SplittableRandom(seed);
    long session = random.nextLong();
    List<PageKey> keys = new ArrayList<>();
    for (int i = 0; i < KEYS; i++) {
      // As sessions make them: alike but for the page index and the layer.
      keys.add(
          new PageKey(session, ~session, (long) (i / 4) << 32 | 7, (long) (i % 4) << 32 | 256));
    }
    return keys;
  }

  @ParameterizedTest
  @CsvSource({"1,1", "2,2", "3,2", "5,3", "16,3", "40,8"})
  void homesAreDistinctAndTheSameInAnyOrderOfNodes(int count, int replicas) {
    List<String> shuffled = nodes(count);
    Collections.shuffle(shuffled, new Random(3));
    Rendezvous one = new Rendezvous(1, nodes(count));
    Rendezvous other = new Rendezvous(9, shuffled);
    for (PageKey key : keys(count)) {
      List<String> homes = one.homes(key, replicas);
      assertThat(homes)
          .hasSize(replicas)
          .doesNotHaveDuplicates()
          .isEqualTo(other.homes(key, replicas));
      // More of the ranking says the same of its beginning.
      assertThat(one.homes(key, count).subList(0, replicas)).isEqualTo(homes);
      assertThat(one.homes(key, count)).containsExactlyInAnyOrderElementsOf(nodes(count));
    }
  }

  @ParameterizedTest
  @CsvSource({"2,1", "2,2", "3,2", "5,3", "16,3"})
  void aJoinOrLeaveMovesOnlyItsShare(int count, int replicas) {
    Rendezvous fewer = new Rendezvous(1, nodes(count));
    Rendezvous more = new Rendezvous(2, nodes(count + 1));
    String joined = "tier-" + count;
    int moved = 0;
    for (PageKey key : keys(count)) {
      List<String> before = fewer.homes(key, replicas);
      List<String> after = more.homes(key, replicas);
      List<String> stayed = new ArrayList<>(after);
      if (stayed.remove(joined)) {
        moved++;
        assertThat(more.hasNewHome(key, replicas, fewer)).isTrue();
      } else {
        assertThat(more.hasNewHome(key, replicas, fewer)).isFalse();
      }
      // Who stays keeps the order; a leave is the same backwards.
      assertThat(before.subList(0, stayed.size())).isEqualTo(stayed);
    }
    double share = (double) replicas / (count + 1);
    assertThat((double) moved / KEYS).isBetween(share - .03, share + .03);
  }

  @Test
  void everyRankIsSpreadEvenly() {
    Rendezvous members = new Rendezvous(1, nodes(5));
    for (int rank = 0; rank < 3; rank++) {
      Map<Integer, Integer> pages = new HashMap<>();
      for (PageKey key : keys(rank)) {
        pages.merge(members.ranking(key, 3)[rank], 1, Integer::sum);
      }
      assertThat(pages).hasSize(5);
      assertThat(pages.values()).allSatisfy(n -> assertThat(n).isBetween(1080, 1320));
    }
  }

  @Test
  void aNodeThatIsThereTwiceIsRefused() {
    assertThatThrownBy(() -> new Rendezvous(1, List.of("a", "b", "a")))
        .isInstanceOf(KvtierException.class)
        .hasMessageContaining("[a, b, a]");
  }
}
