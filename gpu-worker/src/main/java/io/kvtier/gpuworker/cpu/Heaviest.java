package io.kvtier.gpuworker.cpu;

import static io.kvtier.page.PageLayout.TOKENS;

import io.kvtier.page.Residence;

/**
 * Which tokens are attended to by more than four bits, where more are stored: the few that weigh
 * most. An output's error is about the sum of each token's rounding times its weight, and that of
 * many light tokens averages out; on the shipped model the sixteen heaviest tokens of a head have
 * all but a hundredth of it (README). One thread.
 */
final class Heaviest {
  private static final int TOKENS_MAX = Residence.FINER_TOKENS_MAX;

  /** Lighter ones are not: of attention's mass, pooled over the group. */
  private static final float MASS_MIN = 1f / 1024;

  /** Of tokens that all come: those with at least e^-this of the heaviest one's weight. */
  private static final float BELOW_HEAVIEST = 5;

  /** Of the heaviest so far, in no order: a heap is not worth its code for so few. */
  private final float[] masses = new float[TOKENS_MAX];

  private final int[] indices = new int[TOKENS_MAX];

  /**
   * Marks the heaviest of some tokens; of equal ones the first.
   *
   * @param all masses, {@code count} of them
   * @param marks set where a token is one of them; others are left
   */
  void mark(float[] all, int count, boolean[] marks) {
    int found = 0;
    int least = 0;
    for (int i = 0; i < count; i++) {
      if (all[i] < MASS_MIN) {
        continue;
      }
      if (found < TOKENS_MAX) {
        masses[found] = all[i];
        indices[found++] = i;
      } else if (all[i] > masses[least]) {
        masses[least] = all[i];
        indices[least] = i;
      } else {
        continue;
      }
      if (found == TOKENS_MAX) {
        least = least();
      }
    }
    for (int i = 0; i < found; i++) {
      marks[indices[i]] = true;
    }
  }

  /** Of the kept ones the lightest; of equal ones the last. */
  private int least() {
    int least = 0;
    for (int i = 1; i < TOKENS_MAX; i++) {
      if (masses[i] < masses[least]
          || (masses[i] == masses[least] && indices[i] > indices[least])) {
        least = i;
      }
    }
    return least;
  }

  /**
   * The tokens of a page that are heavy for any query, beside what came before it, as a bit set.
   *
   * @param scores {@code [group][64]}
   * @param maxima {@code [group]}: the page's largest
   * @param references {@code [group]}: largest scores before it, -∞: none
   */
  static long ofPage(float[] scores, int group, float[] maxima, float[] references) {
    long heavy = 0;
    for (int g = 0; g < group; g++) {
      float floor = Math.max(maxima[g], references[g]) - BELOW_HEAVIEST;
      if (maxima[g] < floor) {
        continue;
      }
      for (int t = 0; t < TOKENS; t++) {
        heavy |= scores[g * TOKENS + t] >= floor ? 1L << t : 0;
      }
    }
    return heavy;
  }
}
