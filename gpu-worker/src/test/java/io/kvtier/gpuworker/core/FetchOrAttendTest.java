package io.kvtier.gpuworker.core;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import io.kvtier.gpuworker.core.FetchOrAttend.Course;
import io.kvtier.gpuworker.core.FetchOrAttend.Rule;
import java.util.SplittableRandom;
import org.junit.jupiter.api.Test;

/** Which of two ways is taken, by made-up times. */
class FetchOrAttendTest {
  private static final long PAGE_BYTES = 4_000;

  /** A network and a tier: a round trip, then bytes or pages. */
  private record World(double roundTripNs, double nsPerByte, double nsPerPage) {
    /** Takes a step of so many pages; the course. */
    Course step(FetchOrAttend choice, long pages) {
      Course course = choice.decide(pages * PAGE_BYTES, pages);
      if (course != Course.ATTEND) {
        choice.fetched(pages * PAGE_BYTES, (long) (roundTripNs + nsPerByte * pages * PAGE_BYTES));
      }
      if (course != Course.FETCH) {
        choice.attended(pages, (long) (roundTripNs + nsPerPage * pages));
      }
      return course;
    }
  }

  private static final World SLOW_NETWORK = new World(500_000, 1 / .5, 2_000);
  private static final World SLOW_TIER = new World(500_000, 1 / 5., 20_000);

  private static int count(FetchOrAttend choice, World world, int steps, Course wanted) {
    int count = 0;
    for (int i = 0; i < steps; i++) {
      count += world.step(choice, 100 + i % 7) == wanted ? 1 : 0;
    }
    return count;
  }

  @Test
  void theFirstStepMeasuresBothAndTheSoonerIsTakenFromThenOn() {
    FetchOrAttend near = new FetchOrAttend();
    assertThat(SLOW_NETWORK.step(near, 100)).isEqualTo(Course.BOTH);
    assertThat(count(near, SLOW_NETWORK, 1000, Course.ATTEND)).isGreaterThanOrEqualTo(980);
    FetchOrAttend fetch = new FetchOrAttend();
    assertThat(SLOW_TIER.step(fetch, 100)).isEqualTo(Course.BOTH);
    assertThat(count(fetch, SLOW_TIER, 1000, Course.FETCH)).isGreaterThanOrEqualTo(980);
  }

  /** First calls find everything cold, on either side, and tell nothing of those to come. */
  @Test
  void coldFirstCallsAreForgotten() {
    for (boolean coldTier : new boolean[] {false, true}) {
      FetchOrAttend choice = new FetchOrAttend();
      int right = 0;
      for (int i = 0; i < 200; i++) {
        Course course = choice.decide(100 * PAGE_BYTES, 100);
        if (course != Course.ATTEND) {
          choice.fetched(100 * PAGE_BYTES, i < 3 && !coldTier ? 130_000_000 : 2_000_000);
        }
        if (course != Course.FETCH) {
          choice.attended(100, i < 3 && coldTier ? 130_000_000 : coldTier ? 700_000 : 5_000_000);
        }
        right += course == (coldTier ? Course.ATTEND : Course.FETCH) ? 1 : 0;
      }
      assertThat(right).as("cold tier: %s", coldTier).isGreaterThan(180);
    }
  }

  @Test
  void aChangeIsNoticed() {
    FetchOrAttend choice = new FetchOrAttend();
    assertThat(count(choice, SLOW_NETWORK, 1000, Course.ATTEND)).isGreaterThan(980);
    assertThat(count(choice, SLOW_TIER, 1000, Course.FETCH)).isGreaterThan(900);
    assertThat(count(choice, SLOW_NETWORK, 3000, Course.ATTEND)).isGreaterThan(1500);
  }

  /** A busy machine holds single calls up, of either way; the sooner way stays the one taken. */
  @Test
  void whatIsHeldUpOnceIsNotTakenForSlow() {
    World quick = new World(200_000, 1 / .5, 2_000);
    for (long seed = 1; seed <= 20; seed++) {
      SplittableRandom random = new SplittableRandom(seed);
      FetchOrAttend choice = new FetchOrAttend();
      int near = 0;
      for (int i = 0; i < 4000; i++) {
        World stalled = new World(random.nextInt(50) == 0 ? 20_000_000 : 200_000, 1 / .5, 2_000);
        near += (i < 10 ? quick : stalled).step(choice, 100 + i % 7) == Course.FETCH ? 0 : 1;
      }
      assertThat(near).as("seed %d", seed).isGreaterThan(3600);
    }
  }

  /**
   * The round trip is in both: small layers may be better fetched, large ones not. What is not done
   * is forgotten in time, tried, and learnt again.
   */
  @Test
  void sizesAreToldApart() {
    FetchOrAttend choice = new FetchOrAttend();
    int right = 0;
    for (int i = 0; i < 400; i++) {
      // 20 pages: 516 us and 620 us; 2,000 pages: 2,100 us and 1,610 us.
      long pages = i % 2 == 0 ? 20 : 2000;
      Course course = choice.decide(pages * PAGE_BYTES, pages);
      if (course != Course.ATTEND) {
        choice.fetched(pages * PAGE_BYTES, 500_000 + pages * PAGE_BYTES / 5);
      }
      if (course != Course.FETCH) {
        choice.attended(pages, 610_000 + pages * 500);
      }
      right += course == (pages == 20 ? Course.FETCH : Course.ATTEND) ? 1 : 0;
    }
    assertThat(right).isGreaterThan(340);
  }

  @Test
  void refusalsAreWaitedOutLongerEachTime() {
    FetchOrAttend choice = new FetchOrAttend();
    choice.follow(Rule.ALWAYS);
    assertThat(choice.decide(1, 1)).isEqualTo(Course.BOTH);
    choice.fetched(1, 1);
    choice.attended(1, 1);
    for (int wait : new int[] {8, 16, 32, 64, 128, 256, 512, 1024, 1024}) {
      assertThat(choice.decide(1, 1)).isEqualTo(Course.ATTEND);
      choice.refused();
      for (int i = 0; i < wait; i++) {
        assertThat(choice.decide(1, 1)).isEqualTo(Course.FETCH);
      }
    }
    assertThat(choice.decide(1, 1)).isEqualTo(Course.ATTEND);
    choice.attended(1, 1);
    choice.refused();
    for (int i = 0; i < 8; i++) {
      assertThat(choice.decide(1, 1)).isEqualTo(Course.FETCH);
    }
    assertThat(choice.decide(1, 1)).isEqualTo(Course.ATTEND);
  }

  /** Slower or not, and held against the fetched pages now and then. */
  @Test
  void alwaysIsCheckedToo() {
    FetchOrAttend always = new FetchOrAttend();
    always.follow(Rule.ALWAYS);
    World tier = new World(500_000, 1 / 1.5, 5_000);
    assertThat(tier.step(always, 100)).isEqualTo(Course.BOTH);
    int checks = count(always, tier, 10 * FetchOrAttend.CHECK_EVERY, Course.BOTH);
    assertThat(checks).isEqualTo(10);
    assertThat(count(always, tier, 100, Course.FETCH)).isZero();
  }

  @Test
  void anAnswerIsWorthAMultipleOfWhatEitherWayTakes() {
    FetchOrAttend choice = new FetchOrAttend();
    assertThat(choice.patienceNs(PAGE_BYTES, 1)).isEqualTo(FetchOrAttend.PATIENCE_LEAST_NS);
    for (int i = 0; i < 100; i++) {
      choice.fetched(1_000_000, 50_000_000);
      choice.attended(250, 1_000_000);
    }
    assertThat((double) choice.patienceNs(1_000_000, 250)).isEqualTo(400e6, within(10e6));
  }

  @Test
  void whatIsRuledOutIsNotTried() {
    FetchOrAttend never = new FetchOrAttend();
    never.follow(Rule.NEVER);
    assertThat(count(never, SLOW_NETWORK, 2000, Course.FETCH)).isEqualTo(2000);
    FetchOrAttend ended = new FetchOrAttend();
    ended.follow(Rule.ALWAYS);
    ended.end();
    assertThat(count(ended, SLOW_NETWORK, 2000, Course.FETCH)).isEqualTo(2000);
    assertThat(new FetchOrAttend().decide(0, 0)).isEqualTo(Course.FETCH);
  }

  @Test
  void aCostIsLearntAndForgotten() {
    SplittableRandom random = new SplittableRandom(3);
    LinearCost cost = new LinearCost(200_000, .67);
    assertThat(cost.expectedNs(1000)).isEqualTo(200_670, within(1.));
    for (int i = 0; i < 100; i++) {
      long units = random.nextInt(1_000_000);
      cost.observe(units, 500_000 + 2 * units);
    }
    assertThat(cost.expectedNs(0)).isEqualTo(500_000, within(25_000.));
    assertThat(cost.expectedNs(1_000_000)).isEqualTo(2_500_000, within(50_000.));
    for (int i = 0; i < 100; i++) {
      long units = random.nextInt(1_000_000);
      cost.observe(units, 100_000 + 3 * units);
    }
    assertThat(cost.expectedNs(1_000_000)).isEqualTo(3_100_000, within(60_000.));
    // One size alone: right there, and never below nothing elsewhere.
    LinearCost same = new LinearCost(200_000, .67);
    for (int i = 0; i < 100; i++) {
      same.observe(100_000, 900_000);
    }
    assertThat(same.expectedNs(100_000)).isEqualTo(900_000, within(1_000.));
    assertThat(same.expectedNs(0)).isBetween(0., 900_000.);
    assertThat(same.expectedNs(10_000_000)).isGreaterThan(900_000);
  }
}
