package io.kvtier.replica;

import static org.assertj.core.api.Assertions.assertThat;

import io.kvtier.KvtierException.Code;
import io.kvtier.replica.CourseSimulation.Fault;
import io.kvtier.replica.ReplicaCounts.Count;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Objects;
import java.util.SplittableRandom;
import org.junit.jupiter.api.Test;

/** Where a put's copies go, on simulated nodes under a simulated clock. */
class WriteCourseTest {
  private static final int PAGES = 20;

  private static CourseSimulation sim(long seed, int nodes, int replicas, int acks) {
    return new CourseSimulation(seed, nodes, PAGES, CourseSimulation.config(replicas, acks));
  }

  private static WriteCourse course(CourseSimulation sim) {
    return new WriteCourse(sim.rankings, sim.health, sim.config, sim.counts);
  }

  private static long copies(CourseSimulation sim, int page) {
    return sim.nodes.stream().filter(node -> node.containsKey(page)).count();
  }

  @Test
  void everyPageGoesToItsHomesAndNowhereElse() {
    CourseSimulation sim = sim(1, 5, 3, 2);
    WriteCourse course = course(sim);
    assertThat(sim.write(course)).isTrue();
    for (int page = 0; page < PAGES; page++) {
      for (int rank = 0; rank < 5; rank++) {
        assertThat(sim.nodes.get(sim.rankings[page][rank]).containsKey(page)).isEqualTo(rank < 3);
      }
      assertThat(course.needsRepair(page)).isFalse();
    }
  }

  @Test
  void theNextInRankStandsInForAHomeThatRefusesAndThePageIsToBeRepaired() {
    CourseSimulation sim = sim(2, 4, 2, 2);
    sim.faults[0] = Fault.FULL;
    WriteCourse course = course(sim);
    assertThat(sim.write(course)).isTrue();
    for (int page = 0; page < PAGES; page++) {
      boolean home = sim.rankings[page][0] == 0 || sim.rankings[page][1] == 0;
      assertThat(copies(sim, page)).isEqualTo(2);
      assertThat(course.needsRepair(page)).isEqualTo(home);
    }
    assertThat(sim.counts.get(Count.COPIES_FAILED)).isPositive();
    // A full node is alive: reads of what it has still begin there.
    assertThat(sim.health[0].suspect(sim.nowNs)).isFalse();
  }

  @Test
  void tooFewNodesThatAnswerAreARefusalAndTooFewMembersAreCounted() {
    CourseSimulation dead = sim(3, 2, 2, 2);
    dead.faults[1] = Fault.DEAD;
    WriteCourse refused = course(dead);
    assertThat(dead.write(refused)).isFalse();
    assertThat(Objects.requireNonNull(refused.failure()).code()).isEqualTo(Code.UNAVAILABLE);
    assertThat(dead.counts.get(Count.SHORT_ACKS)).isZero();
    CourseSimulation alone = sim(3, 1, 2, 2);
    assertThat(alone.write(course(alone))).isTrue();
    assertThat(alone.counts.get(Count.SHORT_ACKS)).isEqualTo(PAGES);
  }

  @Test
  void aSilentNodeIsStoodInForOnceAndWhatItStoresAfterAllCounts() {
    CourseSimulation sim = sim(4, 4, 2, 2);
    WriteCourse course = course(sim);
    long silenceNs = sim.config.askTimeout().toNanos();
    List<WriteCourse.Copy> copies = new ArrayList<>(course.begin(0));
    WriteCourse.Copy silent = copies.removeFirst();
    copies.forEach(course::stored);
    assertThat(course.acknowledged()).isFalse();
    assertThat(course.untilTickNs(1)).isEqualTo(silenceNs - 1);
    assertThat(course.tick(silenceNs - 1)).isEmpty();
    List<WriteCourse.Copy> standIns = course.tick(silenceNs);
    assertThat(standIns.stream().flatMap(copy -> copy.pages().stream()))
        .containsExactlyInAnyOrderElementsOf(silent.pages());
    assertThat(sim.health[silent.node()].suspect(silenceNs)).isTrue();
    assertThat(course.tick(2 * silenceNs - 1)).isEmpty();
    standIns.forEach(course::stored);
    assertThat(course.acknowledged()).isTrue();
    assertThat(course.over()).isFalse();
    course.stored(silent);
    assertThat(course.over()).isTrue();
    assertThat(course.failure()).isNull();
  }

  /** Whatever fails while writing: what was acknowledged at W outlives any W - 1 nodes. */
  @Test
  void whatWasAcknowledgedIsReadAfterAnyOneNodeDied() {
    for (long seed = 0; seed < 1000; seed++) {
      SplittableRandom random = new SplittableRandom(seed);
      int nodes = 2 + random.nextInt(4);
      int replicas = 2 + random.nextInt(nodes - 1);
      CourseSimulation sim = sim(seed, nodes, replicas, 2 + random.nextInt(replicas - 1));
      Fault[] faults = {Fault.NONE, Fault.NONE, Fault.SLOW, Fault.DEAD, Fault.FULL};
      Arrays.setAll(sim.faults, node -> faults[random.nextInt(faults.length)]);
      long willing =
          Arrays.stream(sim.faults).filter(f -> f == Fault.NONE || f == Fault.SLOW).count();
      boolean acknowledged = sim.write(course(sim));
      assertThat(acknowledged).as("seed %d", seed).isEqualTo(willing >= sim.config.writeAcks());
      Arrays.fill(sim.faults, Fault.NONE);
      int dies = random.nextInt(nodes);
      sim.faults[dies] = Fault.DEAD;
      if (acknowledged) {
        ReadCourse read =
            new ReadCourse(sim.rankings, sim.health, sim.config, sim.budget, sim.counts);
        assertThat(sim.read(read)).as("seed %d", seed).hasSize(PAGES).doesNotContainValue(dies);
      }
    }
  }
}
