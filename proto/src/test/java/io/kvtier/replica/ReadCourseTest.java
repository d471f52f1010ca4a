package io.kvtier.replica;

import static org.assertj.core.api.Assertions.assertThat;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.replica.CourseSimulation.Fault;
import io.kvtier.replica.CourseSimulation.Stored;
import io.kvtier.replica.ReplicaCounts.Count;
import java.util.Map;
import java.util.Objects;
import java.util.SplittableRandom;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/** Whom a read asks, on simulated nodes under a simulated clock. */
class ReadCourseTest {
  private static final int PAGES = 40;

  private static ReadCourse course(CourseSimulation sim) {
    return new ReadCourse(sim.rankings, sim.health, sim.config, sim.budget, sim.counts);
  }

  private static CourseSimulation filled(long seed, int nodes, int replicas) {
    CourseSimulation sim =
        new CourseSimulation(seed, nodes, PAGES, CourseSimulation.config(replicas, replicas));
    sim.fill();
    return sim;
  }

  private static Code failure(ReadCourse course) {
    return Objects.requireNonNull(course.failure()).code();
  }

  @Test
  void allPagesComeFromTheirFirstHomesInOneAskANode() {
    CourseSimulation sim = filled(1, 3, 2);
    Map<Integer, Integer> taken = sim.read(course(sim));
    assertThat(taken).hasSize(PAGES);
    taken.forEach((page, node) -> assertThat(node).isEqualTo(sim.rankings[page][0]));
    assertThat(sim.asksSent).isEqualTo(3);
    assertThat(sim.counts.hits(0)).isEqualTo(PAGES);
    assertThat(sim.counts.get(Count.FAIL_OVERS)).isZero();
  }

  @ParameterizedTest
  @EnumSource(
      value = Fault.class,
      names = {"DEAD", "SILENT", "SLOW", "STALLS"})
  void oneNodeInTroubleCostsNoPage(Fault fault) {
    CourseSimulation sim = filled(2, 3, 2);
    sim.faults[1] = fault;
    assertThat(sim.read(course(sim))).hasSize(PAGES);
    if (fault != Fault.SLOW) {
      assertThat(sim.counts.get(Count.FAIL_OVERS)).isPositive();
      assertThat(sim.counts.hits(1)).isPositive();
      // Next time it is asked last, so nothing waits for it.
      long before = sim.nowNs;
      assertThat(sim.read(course(sim))).hasSize(PAGES).doesNotContainValue(1);
      assertThat(sim.nowNs - before).isLessThan(10 * CourseSimulation.MS);
    }
  }

  @Test
  void aNodeThatCameBackEmptyIsAskedOnceAndAllItLacksIsToBeRepairedInTime() {
    CourseSimulation sim = filled(3, 2, 2);
    sim.nodes.get(0).clear();
    ReadCourse course = course(sim);
    assertThat(sim.read(course)).hasSize(PAGES).doesNotContainValue(0);
    // Two first asks, and one for all that the empty node did not give.
    assertThat(sim.asksSent).isEqualTo(3);
    assertThat(course.needsRepair(firstAt(sim, 0))).isTrue();
    assertThat(course.needsRepair(firstAt(sim, 1))).isFalse();
  }

  private static int firstAt(CourseSimulation sim, int node) {
    int page = 0;
    while (sim.rankings[page][0] != node) {
      page++;
    }
    return page;
  }

  @Test
  void aFlippedPageIsTakenFromTheNextHomeAndIsToBeRepaired() {
    CourseSimulation sim = filled(4, 3, 2);
    sim.nodes.get(sim.rankings[7][0]).put(7, Stored.FLIPS);
    ReadCourse course = course(sim);
    assertThat(sim.read(course)).containsEntry(7, sim.rankings[7][1]).hasSize(PAGES);
    assertThat(sim.counts.get(Count.FLAWED_ANSWERS)).isOne();
    assertThat(sim.counts.hits(1)).isOne();
    for (int page = 0; page < PAGES; page++) {
      assertThat(course.needsRepair(page)).isEqualTo(page == 7);
    }
  }

  @Test
  void aPageOffItsHomesIsFoundAndIsToBeRepaired() {
    CourseSimulation sim = filled(5, 5, 2);
    sim.nodes.forEach(node -> node.remove(3));
    sim.nodes.get(sim.rankings[3][4]).put(3, Stored.GOOD);
    ReadCourse course = course(sim);
    assertThat(sim.read(course)).containsEntry(3, sim.rankings[3][4]);
    assertThat(sim.counts.hits(4)).isOne();
    assertThat(course.needsRepair(3)).isTrue();
  }

  @Test
  void aPageThatAllLackIsLostAndOneThatSomeMayHaveIsUnavailable() {
    CourseSimulation sim = filled(6, 3, 2);
    sim.nodes.forEach(node -> node.remove(3));
    ReadCourse lost = course(sim);
    sim.read(lost);
    assertThat(failure(lost)).isEqualTo(Code.LOST);
    sim.faults[2] = Fault.DEAD;
    ReadCourse unavailable = course(sim);
    sim.read(unavailable);
    assertThat(failure(unavailable)).isEqualTo(Code.UNAVAILABLE);
  }

  @Test
  void theCallersFaultIsNotTriedElsewhere() {
    CourseSimulation sim = filled(7, 2, 2);
    ReadCourse course = course(sim);
    ReadCourse.Ask ask = course.begin(sim.nowNs).getFirst();
    course.refused(ask, new KvtierException(Code.INVALID, "no such head"), sim.nowNs);
    assertThat(failure(course)).isEqualTo(Code.INVALID);
  }

  @Test
  void slowAnswersAreHedgedPastTheNodesOwnPercentileWithinTheBudget() {
    CourseSimulation sim = filled(8, 2, 2);
    for (int i = 0; i < 100; i++) {
      assertThat(sim.read(course(sim))).hasSize(PAGES);
    }
    long hedgesOfHealthy = sim.counts.get(Count.HEDGES_SENT);
    sim.faults[0] = Fault.SLOW;
    long before = sim.nowNs;
    assertThat(sim.read(course(sim))).hasSize(PAGES);
    assertThat(sim.counts.get(Count.HEDGES_SENT)).isGreaterThan(hedgesOfHealthy);
    assertThat(sim.counts.get(Count.HEDGES_WON)).isPositive();
    // A slow answer takes 40 ms and more; the hedge came after little more than one.
    assertThat(sim.nowNs - before).isLessThan(20 * CourseSimulation.MS);
    for (int i = 0; i < 400; i++) {
      assertThat(sim.read(course(sim))).hasSize(PAGES);
    }
    assertThat(sim.counts.get(Count.HEDGES_SENT)).isLessThanOrEqualTo(501L * PAGES * 5 / 100);
  }

  /** Any mix of faults: what a living node has is read, as it is, and only that. */
  @Test
  void whateverFailsEveryPageThatAWillingNodeHasIsRead() {
    for (long seed = 0; seed < 2000; seed++) {
      SplittableRandom random = new SplittableRandom(seed);
      int nodes = 1 + random.nextInt(5);
      CourseSimulation sim = filled(seed, nodes, 1 + random.nextInt(nodes));
      spoil(sim, random);
      boolean[] readable = readable(sim);
      ReadCourse course = course(sim);
      Map<Integer, Integer> taken = sim.read(course);
      boolean all = true;
      for (int page = 0; page < PAGES; page++) {
        all &= readable[page];
        if (taken.containsKey(page)) {
          assertThat(sim.nodes.get(taken.get(page)))
              .as("seed %d, page %d", seed, page)
              .containsEntry(page, Stored.GOOD);
        }
      }
      if (all) {
        assertThat(course.done()).as("seed %d", seed).isTrue();
      }
      if (!course.done()) {
        assertThat(failure(course)).as("seed %d", seed).isIn(Code.LOST, Code.UNAVAILABLE);
      }
    }
  }

  private static void spoil(CourseSimulation sim, SplittableRandom random) {
    Fault[] faults = {
      Fault.NONE, Fault.NONE, Fault.NONE, Fault.DEAD, Fault.SILENT, Fault.SLOW, Fault.STALLS
    };
    for (int node = 0; node < sim.nodes.size(); node++) {
      sim.faults[node] = faults[random.nextInt(faults.length)];
      double lost = random.nextInt(3) == 0 ? random.nextDouble() : 0;
      for (int page = 0; page < PAGES; page++) {
        if (random.nextDouble() < lost) {
          sim.nodes.get(node).remove(page);
        } else if (random.nextDouble() < .02) {
          sim.nodes.get(node).computeIfPresent(page, (p, good) -> Stored.FLIPS);
        }
      }
    }
  }

  /** Pages that some node which answers has. One that stalls may serve too few to count. */
  private static boolean[] readable(CourseSimulation sim) {
    boolean[] readable = new boolean[PAGES];
    for (int page = 0; page < PAGES; page++) {
      for (int node = 0; node < sim.nodes.size(); node++) {
        boolean answers =
            switch (sim.faults[node]) {
              case NONE, SLOW -> true;
              default -> false;
            };
        readable[page] |= answers && sim.nodes.get(node).get(page) == Stored.GOOD;
      }
    }
    return readable;
  }
}
