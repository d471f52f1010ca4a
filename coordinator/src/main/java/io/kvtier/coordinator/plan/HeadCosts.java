package io.kvtier.coordinator.plan;

import io.kvtier.page.PageLayout;
import io.kvtier.page.Residence;
import java.util.ArrayList;
import java.util.List;

/**
 * What one head costs under each residence: device bytes, bytes fetched a step, and the time of a
 * step. The time is that of fetched bytes at the tier's rate, and of attended bytes at the device's
 * ({@link PlanRates}): a dense head fetches nothing and reads everything, a streamed one does the
 * worst of both.
 *
 * <p>Only residences on the lower convex hull of (device bytes, time) are worth their bytes; they
 * are the steps by which a greedy choice under a budget is near the best (a multiple-choice
 * knapsack; Sinha and Zoltners, 1979).
 */
final class HeadCosts {
  /** Tokens that one plane chooses for each that is needed: it knows them less well. */
  private static final int ONE_PLANE_CANDIDATES = 3;

  /** Bytes of a request for rows of a page: its key and what frames it, for all heads. */
  private static final int REQUEST_PAGE_BYTES = 64;

  /** And the tokens of a head. */
  private static final int REQUEST_HEAD_BYTES = 8;

  /** One residence of one head. */
  record Option(Residence residence, long deviceBytes, long fetchBytes, double timeNs) {}

  /**
   * Scores by one plane that err by more than this miss tokens that hold much: e^score is too small
   * by e^(variance / 2) on average, and a worker makes up for e^2 at most.
   */
  private static final float SCORE_ERROR_MAX = 2;

  /** A head is streamed instead, unless a step of that takes longer. */
  private static final double STREAMED_NS_MAX = 2e6;

  private final List<Option> options = new ArrayList<>();
  private final boolean onePlaneErrs;

  /**
   * A head's costs.
   *
   * @param needed dominant tokens of a mean step
   * @param scoreError deviation of the error of its scores by one plane, or {@link
   *     ResidualCurve#UNMEASURED}
   */
  HeadCosts(PlanInputs inputs, int needed, float scoreError) {
    Option streamed = option(inputs, Residence.STREAMED, needed);
    onePlaneErrs = scoreError > SCORE_ERROR_MAX && streamed.timeNs() <= STREAMED_NS_MAX;
    options.add(streamed);
    if (!onePlaneErrs) {
      options.add(option(inputs, Residence.ONE_PLANE, needed));
    }
    options.add(option(inputs, Residence.TWO_PLANES, needed));
    options.add(option(inputs, Residence.DENSE, needed));
  }

  /** Whether one plane is no option, since its scores are too far from the true ones. */
  boolean onePlaneErrs() {
    return onePlaneErrs;
  }

  private static Option option(PlanInputs inputs, Residence residence, int needed) {
    long fetched =
        switch (residence) {
          case DENSE -> 0;
          case TWO_PLANES -> rowBytes(inputs, residence, needed);
          case ONE_PLANE -> rowBytes(inputs, residence, (long) ONE_PLANE_CANDIDATES * needed);
          case STREAMED ->
              (long) inputs.pages() * inputs.layout().lengthOf(residence.codes(inputs.layout()));
        };
    long resident = inputs.headBytes(residence);
    // A scan of one plane takes about as long as one of two: it waits for instructions.
    long scanned =
        switch (residence) {
          case STREAMED -> 0;
          case ONE_PLANE -> inputs.headBytes(Residence.TWO_PLANES);
          case TWO_PLANES, DENSE -> resident;
        };
    double timeNs = inputs.rates().timeNs(fetched, fetched + scanned);
    return new Option(residence, resident, fetched, timeNs);
  }

  /** Bytes of the rows of so many tokens, and of asking for them page by page. */
  private static long rowBytes(PlanInputs inputs, Residence residence, long tokens) {
    long rows = Math.min(tokens, (long) inputs.pages() * PageLayout.TOKENS);
    long each = inputs.layout().lengthOf(residence.rows()) / PageLayout.TOKENS;
    // A page that one head wants is wanted by half of the others, say.
    double sharing = Math.max(1, inputs.geometry().getKvHeads() / 2.);
    double asking = REQUEST_HEAD_BYTES + REQUEST_PAGE_BYTES / sharing;
    long heaviest = Math.min(rows, Residence.FINER_TOKENS_MAX);
    long finer = inputs.layout().lengthOf(Residence.finer(inputs.layout())) / PageLayout.TOKENS;
    return rows * each
        + heaviest * finer
        + Math.round(touched(inputs.pages(), (double) rows) * asking);
  }

  /** Pages that hold at least one of so many tokens, which lie anywhere. */
  private static double touched(long pages, double tokens) {
    return pages == 0 ? 0 : pages * (1 - Math.exp(-tokens / pages));
  }

  Option of(Residence residence) {
    for (Option option : options) {
      if (option.residence() == residence) {
        return option;
      }
    }
    throw new IllegalArgumentException("no option " + residence);
  }

  /** Options worth their bytes, by rising device bytes; the first is that of fewest. */
  List<Option> worthwhile() {
    List<Option> hull = new ArrayList<>();
    for (Option option : options) {
      while (!hull.isEmpty() && !isBelow(hull, option)) {
        hull.removeLast();
      }
      if (hull.isEmpty() || option.timeNs() < hull.getLast().timeNs()) {
        hull.add(option);
      }
    }
    return hull;
  }

  /** Whether the last of the hull stays on it once a further option is added. */
  private static boolean isBelow(List<Option> hull, Option next) {
    Option last = hull.getLast();
    if (next.timeNs() >= last.timeNs()) {
      return true;
    }
    if (next.deviceBytes() == last.deviceBytes()) {
      return false;
    }
    return hull.size() == 1 || gain(hull.get(hull.size() - 2), last) > gain(last, next);
  }

  /** Nanoseconds that a byte saves. */
  static double gain(Option from, Option to) {
    return (from.timeNs() - to.timeNs()) / Math.max(1, to.deviceBytes() - from.deviceBytes());
  }
}
