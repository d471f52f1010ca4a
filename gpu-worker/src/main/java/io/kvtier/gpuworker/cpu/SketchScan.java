package io.kvtier.gpuworker.cpu;

import static io.kvtier.page.PageLayout.TOKENS;

import io.kvtier.attention.GroupQuery;
import io.kvtier.attention.HeadOffsets;
import io.kvtier.attention.Kernels;
import io.kvtier.attention.Partial;
import io.kvtier.gpuworker.core.Candidates;
import io.kvtier.gpuworker.core.HeadPolicy;
import io.kvtier.gpuworker.core.TokenChooser;
import io.kvtier.gpuworker.cpu.Workshop.Tools;
import io.kvtier.gpuworker.device.LayerShape;
import java.util.Arrays;

/**
 * Scans one KV head's sketch and chooses its dominant tokens. A method that takes a range may run
 * at the same time as others of other ranges; the rest run alone.
 */
final class SketchScan {
  /** Weights beyond this are near fp32's end: their reference is raised. */
  private static final float TOTAL_MAX = 1e30f;

  /** Pages weighed at once after a reference was raised. */
  private static final int RAISED_RUN = 4;

  /** Pages whose weights memory is asked for ahead of their second use. */
  private static final int WEIGHTS_AHEAD = 4;

  /** Chosen tokens whose weights memory is asked for ahead of that. */
  private static final int CHOSEN_AHEAD = 32;

  private static final float LN_2 = .6931472f;

  private static final int RANGE = HeadPass.RANGE;

  private final CpuLayer layer;
  private final Kernels kernels;
  private final HeadPolicy policy;
  private final HeadPages pages;
  private final HeadOffsets at;
  private final int group;
  private final int planes;
  private final GroupQuery query;
  private final Partial[] partials;
  private final TokenChooser chooser = new TokenChooser();
  private int[] chosen = new int[0];
  private float[] chosenMasses = new float[0];
  private int chosenCount;
  private int candidateCount;

  /** {@code [group]}: variance of a sketch score's error, for a token of scale 1. */
  private final float[] errorVariance;

  /**
   * A scan.
   *
   * @param query rotated
   * @param partials {@code [group]}: what the exact rows gave
   */
  SketchScan(
      CpuLayer layer,
      int head,
      HeadPolicy policy,
      Kernels kernels,
      GroupQuery query,
      Partial[] partials) {
    LayerShape shape = layer.shape();
    this.layer = layer;
    this.kernels = kernels;
    this.policy = policy;
    this.pages = layer.head(head);
    this.at = HeadPages.offsets(shape.layout(), policy.residence());
    this.group = shape.group();
    this.planes = policy.residence().planes();
    this.query = query;
    this.partials = partials;
    this.errorVariance = new float[group];
  }

  /** Makes ready for the query. */
  void begin(PassMemory memory) {
    chosenCount = 0;
    candidateCount = 0;
    for (int g = 0; g < group; g++) {
      errorVariance[g] = SketchError.variance(planes) * query.squareNorm(g);
    }
    memory.reserve(layer.pages(), CpuPass.ranges(layer.pages()), group);
  }

  /** Chooses nothing. */
  void clear() {
    chosenCount = 0;
  }

  /** Pages of a range end here. */
  private int end(int range) {
    return Math.min(layer.pages(), (range + 1) * RANGE);
  }

  /** Weighs a range's tokens by the sketch, relative to about the exact rows' log-sum-exp. */
  void scan(int range, PassMemory memory, Tools tools) {
    int first = range * RANGE;
    for (int g = 0; g < group; g++) {
      memory.references[range * group + g] = reference(g, first, tools);
    }
    int end = end(range);
    int run = RANGE;
    int page = first;
    while (page < end) {
      int to = Math.min(end, page + run);
      weigh(range, page, to, memory, tools);
      page = raiseFirst(range, page, to, memory, tools);
      if (page < to) {
        // Where one page's weights are too large, those of the pages behind it may be.
        run = RAISED_RUN;
      }
    }
    if (range == 0) {
      leaveSinksOut(memory);
    }
    for (int g = 0; g < group; g++) {
      double total = 0;
      for (int scanned = first; scanned < end; scanned++) {
        total += memory.pageTotals[scanned * group + g];
      }
      memory.rangeTotals[range * group + g] = total;
    }
  }

  /**
   * The error of a sketch score is spread about 0, so that e^score is too small on average by
   * e^(variance / 2): the reference makes up for it, page by page.
   */
  private void weigh(int range, int from, int to, PassMemory memory, Tools tools) {
    float[] references = tools.references;
    for (int page = from; page < to; page++) {
      for (int g = 0; g < group; g++) {
        references[(page - from) * group + g] =
            memory.references[range * group + g]
                - SketchError.raise(errorVariance[g], pages.squareScale(page));
      }
    }
    kernels.sketchWeights(
        query,
        at,
        pages.sketchAddresses(),
        from,
        to,
        planes,
        tools.scratch,
        references,
        0,
        memory.weightsOf(from, group),
        memory.pageTotals,
        memory.meanScores,
        from * group);
  }

  /**
   * A multiple of ln 2, which moves the exponents of weights alone: so they are rounded alike
   * whatever they are relative to, in any range and on any device.
   */
  private float reference(int g, int page, Tools tools) {
    float exact = partials[g].lse();
    return multiple(exact == Float.NEGATIVE_INFINITY ? largestScore(g, page, tools) : exact);
  }

  private static float multiple(float score) {
    return (float) Math.rint(score / LN_2) * LN_2;
  }

  private float largestScore(int g, int page, Tools tools) {
    kernels.sketchScores(query, at, pages.sketchAddress(page), planes, tools.scratch, tools.scores);
    return kernels.max(tools.scores, g * TOKENS, TOKENS)
        + SketchError.raise(errorVariance[g], pages.squareScale(page));
  }

  /**
   * Looks for the first page whose weights are too large for what they are relative to, and raises
   * that.
   *
   * @return from where on pages must be weighed again: that page; {@code to} if there is none
   */
  private int raiseFirst(int range, int from, int to, PassMemory memory, Tools tools) {
    for (int page = from; page < to; page++) {
      boolean raised = false;
      for (int g = 0; g < group; g++) {
        if (memory.pageTotals[page * group + g] > TOTAL_MAX) {
          raise(range, g, page, memory, tools);
          raised = true;
        }
      }
      if (raised) {
        return page;
      }
    }
    return to;
  }

  /** Takes the page's largest score as the reference of a query's weights in the range. */
  private void raise(int range, int g, int page, PassMemory memory, Tools tools) {
    int slot = range * group + g;
    float higher = Math.max(memory.references[slot], multiple(largestScore(g, page, tools)));
    float shrink = (float) Math.exp(memory.references[slot] - higher);
    memory.references[slot] = higher;
    for (int before = range * RANGE; before < page; before++) {
      int from = (before * group + g) * TOKENS;
      float total = 0;
      for (int t = from; t < from + TOKENS; t++) {
        memory.setWeight(t, memory.weight(t) * shrink);
        total += memory.weight(t);
      }
      memory.pageTotals[before * group + g] = total;
    }
  }

  /** Sinks are attended exactly; their codes in page 0 must not count again. */
  private void leaveSinksOut(PassMemory memory) {
    for (int g = 0; g < group; g++) {
      int from = g * TOKENS;
      for (int t = from; t < from + layer.exact().sinkCount(); t++) {
        memory.setWeight(t, 0);
      }
      float total = 0;
      for (int t = from; t < from + TOKENS; t++) {
        total += memory.weight(t);
      }
      memory.pageTotals[g] = total;
    }
  }

  /** Finds what a weight of each range is worth, and which tokens are worth collecting. */
  void share(PassMemory memory) {
    int ranges = CpuPass.ranges(layer.pages());
    memory.collectFrom(chooser.floor(policy, layer.pages() * TOKENS));
    for (int g = 0; g < group; g++) {
      float max = partials[g].lse();
      for (int range = 0; range < ranges; range++) {
        max = Math.max(max, memory.references[range * group + g]);
      }
      double total = Math.exp(partials[g].lse() - max);
      for (int range = 0; range < ranges; range++) {
        int slot = range * group + g;
        total += memory.rangeTotals[slot] * Math.exp(memory.references[slot] - max);
      }
      for (int range = 0; range < ranges; range++) {
        int slot = range * group + g;
        memory.shares[slot] = (float) (Math.exp(memory.references[slot] - max) / (total * group));
      }
    }
  }

  /** Collects a range's tokens of most mass; pages that cannot hold any are skipped. */
  void collect(int range, PassMemory memory) {
    Candidates candidates = memory.candidates[range];
    int first = range * RANGE;
    int weightsBytes = Short.BYTES * group * TOKENS;
    candidates.clear(policy.tokensMax(), (end(range) - first) * TOKENS);
    for (int page = first; page < end(range); page++) {
      float most = 0;
      for (int g = 0; g < group; g++) {
        most += memory.pageTotals[page * group + g] * memory.shares[range * group + g];
      }
      if (page + WEIGHTS_AHEAD < end(range)) {
        kernels.prefetch(memory.weightsOf(page + WEIGHTS_AHEAD, group), weightsBytes);
      }
      candidates.raise(Float.intBitsToFloat(memory.floorBits.get()));
      if (most >= candidates.floor) {
        if (candidates.makeRoom()) {
          tellFloor(candidates, memory);
        }
        candidates.count =
            kernels.candidates(
                memory.weightsOf(page, group),
                TOKENS,
                group,
                memory.shares,
                range * group,
                candidates.floor,
                page * TOKENS,
                candidates.positions,
                candidates.masses,
                candidates.count);
      }
    }
    if (candidates.finish()) {
      tellFloor(candidates, memory);
    }
  }

  /** What cannot be chosen for one range's sake need not be collected in others. */
  private static void tellFloor(Candidates candidates, PassMemory memory) {
    int bits = Float.floatToRawIntBits(candidates.floorOfAll);
    memory.floorBits.accumulateAndGet(bits, Math::max);
  }

  /** Chooses among all ranges' candidates; collects more where they are not enough. */
  void choose(PassMemory memory) {
    int ranges = CpuPass.ranges(layer.pages());
    double mass = 0;
    for (int slot = 0; slot < ranges * group; slot++) {
      mass += memory.rangeTotals[slot] * memory.shares[slot];
    }
    chosenCount = chooseOf(ranges, mass, memory);
    while (chosenCount == TokenChooser.MORE) {
      memory.collectFrom(chooser.lowerFloor(policy, layer.pages() * TOKENS, memory.floor));
      for (int range = 0; range < ranges; range++) {
        collect(range, memory);
      }
      chosenCount = chooseOf(ranges, mass, memory);
    }
    Candidates all = memory.candidates[0];
    for (int i = 0; i < chosenCount; i++) {
      chosenMasses[i] = all.masses[chosen[i]];
      chosen[i] = all.positions[chosen[i]];
    }
  }

  private int chooseOf(int ranges, double mass, PassMemory memory) {
    Candidates all = memory.candidates[0];
    for (int range = 1; range < ranges; range++) {
      all.addAll(memory.candidates[range]);
    }
    if (chosen.length < all.count) {
      int room = all.count + all.count / 4;
      chosen = new int[room];
      chosenMasses = new float[room];
    }
    candidateCount = all.count;
    return chooser.choose(policy, all, mass, memory.floor, chosen);
  }

  int chosenCount() {
    return chosenCount;
  }

  /** Index of the first chosen token that is not before a position. */
  private int firstChosen(int position) {
    int index = Arrays.binarySearch(chosen, 0, chosenCount, position);
    return index < 0 ? -index - 1 : index;
  }

  /** Tokens that the choice was made among. */
  int candidateCount() {
    return candidateCount;
  }

  int[] chosen() {
    return chosen;
  }

  float chosenMass(int index) {
    return chosenMasses[index];
  }

  /** Estimated masses of the chosen tokens, by the same index; valid until the next choice. */
  float[] chosenMasses() {
    return chosenMasses;
  }

  /**
   * Takes a range's tokens chosen out of their pages' estimates: what is attended is no part of the
   * rest.
   */
  void leaveChosenOut(int range, PassMemory memory, Tools tools) {
    int first = firstChosen(range * RANGE * TOKENS);
    int end = firstChosen((range + 1) * RANGE * TOKENS);
    askForWeights(first, Math.min(end, first + CHOSEN_AHEAD), memory, tools);
    for (int from = first; from < end; from += CHOSEN_AHEAD) {
      int to = Math.min(end, from + CHOSEN_AHEAD);
      askForWeights(to, Math.min(end, to + CHOSEN_AHEAD), memory, tools);
      for (int i = from; i < to; i++) {
        leaveOut(chosen[i], memory);
      }
    }
  }

  /** Asks memory for the weights of chosen tokens, which lie anywhere. */
  private void askForWeights(int from, int to, PassMemory memory, Tools tools) {
    long[] addresses = tools.addresses;
    for (int i = from; i < to; i++) {
      int byteAt = Short.BYTES * (chosen[i] % TOKENS);
      addresses[i - from] = memory.weightsOf(chosen[i] / TOKENS, group) + byteAt;
    }
    kernels.prefetchEach(tools.asked, 0, to - from, 0, group, Short.BYTES * TOKENS);
  }

  private void leaveOut(int position, PassMemory memory) {
    int slot = position / TOKENS * group;
    int first = slot * TOKENS + position % TOKENS;
    for (int g = 0; g < group; g++) {
      float left = memory.pageTotals[slot + g] - memory.weight(first + g * TOKENS);
      memory.pageTotals[slot + g] = Math.max(0, left);
    }
  }
}
