package io.kvtier.gpuworker.core;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.Arrays;
import java.util.SplittableRandom;
import org.junit.jupiter.api.Test;

class TokenChooserTest {
  /** Offers every token as the kernels do, and turns the choice into positions. */
  private static int choose(HeadPolicy policy, float[] masses, int tokens, int[] chosen) {
    Candidates candidates = collect(policy.tokensMax(), masses, 0, tokens);
    int count = new TokenChooser().choose(policy, candidates, total(masses), 0, chosen);
    for (int i = 0; i < count; i++) {
      chosen[i] = candidates.positions[chosen[i]];
    }
    return count;
  }

  private static Candidates collect(int keep, float[] masses, int from, int to) {
    return collect(keep, 0, masses, from, to);
  }

  private static Candidates collect(int keep, float floor, float[] masses, int from, int to) {
    Candidates candidates = new Candidates();
    candidates.clear(keep, to - from);
    candidates.raise(floor);
    for (int t = from; t < to; t++) {
      if (masses[t] >= candidates.floor) {
        candidates.makeRoom();
        candidates.positions[candidates.count] = t;
        candidates.masses[candidates.count++] = masses[t];
      }
    }
    boolean risen = candidates.finish();
    assertThat(candidates.count).isLessThanOrEqualTo(keep);
    assertThat(risen || candidates.floorOfAll == 0 || candidates.count == keep).isTrue();
    return candidates;
  }

  /** What was dropped on the way, and how tokens were split, must not show in the choice. */
  @Test
  void candidatesOfRangesGiveTheChoiceThatAllTokensGive() {
    for (long seed = 0; seed < 100; seed++) {
      SplittableRandom random = new SplittableRandom(seed);
      int tokens = 20_000 + random.nextInt(20_000);
      float[] masses = masses(random, tokens, 1 + random.nextInt(6));
      int max = 1 + random.nextInt(300);
      HeadPolicy policy = HeadPolicy.sparse(1, max, random.nextFloat() * .1f);
      Candidates all = collect(tokens, masses, 0, tokens);
      int split = random.nextInt(tokens);
      Candidates few = collect(max, masses, 0, split);
      few.addAll(collect(max, few.floorOfAll, masses, split, tokens));
      assertThat(few.count).as("seed " + seed).isLessThanOrEqualTo(2 * max);
      int[] expected = new int[tokens];
      int[] actual = new int[tokens];
      int count = new TokenChooser().choose(policy, all, 1, 0, expected);
      assertThat(new TokenChooser().choose(policy, few, 1, 0, actual)).isEqualTo(count);
      for (int i = 0; i < count; i++) {
        assertThat(few.positions[actual[i]])
            .as("seed " + seed)
            .isEqualTo(all.positions[expected[i]]);
      }
    }
  }

  /**
   * A chooser that asks for few tokens makes the choice that all tokens give, however its steps
   * differ, and where they are alike few tokens are enough.
   */
  @Test
  void aFloorLeavesTheChoiceAndSparesMostTokens() {
    for (long seed = 0; seed < 20; seed++) {
      SplittableRandom random = new SplittableRandom(seed);
      TokenChooser chooser = new TokenChooser();
      int tokens = 5_000 + random.nextInt(20_000);
      int alike = 1 + random.nextInt(6);
      HeadPolicy policy = HeadPolicy.sparse(1 + random.nextInt(200), tokens, .003f);
      for (int step = 0; step < 12; step++) {
        boolean other = step % 4 == 3;
        float[] masses = masses(random, tokens, other ? 1 + random.nextInt(9) : alike);
        int[] expected = new int[tokens];
        int[] actual = new int[tokens];
        int count = choose(policy, masses, tokens, expected);
        int offered = choose(chooser, policy, masses, actual);
        assertThat(actual).as("seed " + seed + ", step " + step).isEqualTo(expected);
        if (step % 4 > 0 && !other) {
          assertThat(offered).as("seed " + seed).isLessThan(Math.max(200, 8 * count));
        }
      }
    }
  }

  /**
   * Steps that are alike are asked for hardly more than they choose; where choices rise and fall,
   * enough is asked for that they rarely ask twice.
   */
  @Test
  void asksForFewWhereStepsAreAlikeAndForEnoughWhereTheyAreNot() {
    HeadPolicy policy = HeadPolicy.sparse(500, 500, 0);
    SplittableRandom random = new SplittableRandom(1);
    float[] masses = masses(random, 50_000, 1);
    int[] chosen = new int[masses.length];
    TokenChooser steady = new TokenChooser();
    int offered = 0;
    for (int step = 0; step < 20; step++) {
      offered = offer(steady, policy, masses, chosen);
    }
    assertThat(offered).isBetween(500, 1200);
    int[] sharpnesses = {1, 2};
    TokenChooser unsteady = new TokenChooser();
    int again = 0;
    for (int step = 0; step < 100; step++) {
      masses = masses(random, 50_000, sharpnesses[step % 2]);
      again += offer(unsteady, policy, masses, chosen) == TokenChooser.MORE ? 1 : 0;
    }
    assertThat(again).isLessThan(5);
  }

  /** Tokens offered to one choice; {@link TokenChooser#MORE}: and again to it. */
  private static int offer(TokenChooser chooser, HeadPolicy policy, float[] masses, int[] chosen) {
    float floor = chooser.floor(policy, masses.length);
    Candidates candidates = collect(masses.length, floor, masses, 0, masses.length);
    if (chooser.choose(policy, candidates, total(masses), floor, chosen) != TokenChooser.MORE) {
      return candidates.count;
    }
    choose(chooser, policy, masses, chosen);
    return TokenChooser.MORE;
  }

  /** As a scan offers tokens; how many it offered. */
  private static int choose(TokenChooser chooser, HeadPolicy policy, float[] masses, int[] chosen) {
    float floor = chooser.floor(policy, masses.length);
    while (true) {
      Candidates candidates = collect(policy.tokensMax(), floor, masses, 0, masses.length);
      int count = chooser.choose(policy, candidates, total(masses), floor, chosen);
      if (count != TokenChooser.MORE) {
        for (int i = 0; i < count; i++) {
          chosen[i] = candidates.positions[chosen[i]];
        }
        return candidates.count;
      }
      assertThat(floor).as("all tokens are enough").isPositive();
      floor = chooser.lowerFloor(policy, masses.length, floor);
    }
  }

  @Test
  void choosesTheFewestLargestThatLeaveTheResidual() {
    for (long seed = 0; seed < 200; seed++) {
      SplittableRandom random = new SplittableRandom(seed);
      int tokens = 1 + random.nextInt(3000);
      float[] masses = masses(random, tokens, 1 + random.nextInt(8));
      HeadPolicy policy = policy(random, tokens);
      int[] chosen = new int[tokens];
      int count = choose(policy, masses, tokens, chosen);
      String as = "seed " + seed;
      assertThat(count)
          .as(as)
          .isBetween(Math.min(policy.tokensMin(), tokens), Math.min(policy.tokensMax(), tokens));
      double residual = total(masses);
      boolean[] isChosen = new boolean[tokens];
      for (int i = 0; i < count; i++) {
        assertThat(i == 0 || chosen[i] > chosen[i - 1]).as(as).isTrue();
        isChosen[chosen[i]] = true;
        residual -= masses[chosen[i]];
      }
      if (count < Math.min(policy.tokensMax(), tokens)) {
        assertThat(residual).as(as).isLessThanOrEqualTo(policy.residualMass() + 1e-5);
      }
      requireLargest(masses, isChosen, as);
    }
  }

  /**
   * No token left out is larger than a chosen one by more than a bucket's width; masses below 2^-40
   * count as equal.
   */
  private static void requireLargest(float[] masses, boolean[] isChosen, String as) {
    float smallestChosen = Float.MAX_VALUE;
    float largestLeft = 0;
    for (int t = 0; t < masses.length; t++) {
      if (isChosen[t]) {
        smallestChosen = Math.min(smallestChosen, masses[t]);
      } else {
        largestLeft = Math.max(largestLeft, masses[t]);
      }
    }
    assertThat(largestLeft)
        .as(as)
        .isLessThanOrEqualTo(Math.max(smallestChosen * 1.07f, 0x1.2p-40f));
  }

  private static float[] masses(SplittableRandom random, int tokens, int sharpness) {
    float[] masses = new float[tokens];
    double total = 0;
    for (int t = 0; t < tokens; t++) {
      masses[t] = (float) Math.exp(random.nextGaussian() * sharpness);
      total += masses[t];
    }
    for (int t = 0; t < tokens; t++) {
      masses[t] /= (float) total;
    }
    return masses;
  }

  private static HeadPolicy policy(SplittableRandom random, int tokens) {
    int max = 1 + random.nextInt(tokens);
    return HeadPolicy.sparse(1 + random.nextInt(max), max, random.nextFloat() * .1f);
  }

  private static double total(float[] masses) {
    double total = 0;
    for (float mass : masses) {
      total += mass;
    }
    return total;
  }

  @Test
  void nothingIsChosenWhereNextToNothingLies() {
    float[] masses = new float[100];
    java.util.Arrays.fill(masses, 1e-6f);
    int[] chosen = new int[100];
    assertThat(choose(HeadPolicy.sparse(64, 100, .01f), masses, 100, chosen)).isZero();
    masses[3] = .0011f;
    assertThat(choose(HeadPolicy.sparse(64, 100, .01f), masses, 100, chosen))
        .isGreaterThanOrEqualTo(64);
  }

  @Test
  void tokensWithoutMassAreNeverChosen() {
    float[] masses = new float[100];
    masses[7] = .5f;
    masses[90] = .5f;
    int[] chosen = new int[100];
    HeadPolicy policy = HeadPolicy.sparse(64, 100, 0);
    assertThat(choose(policy, masses, 100, chosen)).isEqualTo(2);
    assertThat(Arrays.copyOf(chosen, 2)).containsExactly(7, 90);
  }

  @Test
  void theHistogramKnowsTheMassBeyondTheLargest() {
    SplittableRandom random = new SplittableRandom(1);
    float[] masses = masses(random, 5000, 3);
    MassHistogram histogram = new MassHistogram();
    for (float mass : masses) {
      histogram.add(mass);
    }
    float[] sorted = masses.clone();
    Arrays.sort(sorted);
    for (int k : new int[] {1, 16, 64, 500, 4999, 6000}) {
      double beyond = 0;
      for (int i = 0; i < 5000 - k; i++) {
        beyond += sorted[i];
      }
      assertThat(histogram.massBeyond(k))
          .isCloseTo(beyond, org.assertj.core.api.Assertions.within(.01));
    }
  }
}
