package io.kvtier.gpuworker.cpu;

import static io.kvtier.page.PageLayout.TOKENS;

import io.kvtier.attention.GroupQuery;
import io.kvtier.attention.Kernels;
import io.kvtier.attention.Partial;
import io.kvtier.gpuworker.core.HeadPolicy;
import io.kvtier.gpuworker.cpu.Workshop.Tools;
import io.kvtier.gpuworker.device.LayerShape;
import java.util.Arrays;

/**
 * One KV head of a pass. Pages are worked on in ranges of {@link #RANGE} pages, whatever the number
 * of threads, and ranges are merged in their order: the result does not depend on who did what.
 */
final class HeadPass {
  /** Pages of a range: long enough to be worth a hand-over, short enough to share out. */
  static final int RANGE = 256;

  private final CpuLayer layer;
  private final LayerShape shape;
  private final Kernels kernels;
  private final int head;
  private final int group;
  private final HeadPolicy policy;
  private final GroupQuery query;
  private final Partial[] partials;
  private final ExactAttention exact;

  /** What only sketched heads use. */
  final SketchScan scan;

  final CodedAttention coded;

  HeadPass(CpuLayer layer, int head, HeadPolicy policy, Kernels kernels) {
    this.layer = layer;
    this.shape = layer.shape();
    this.kernels = kernels;
    this.head = head;
    this.group = shape.group();
    this.policy = policy;
    this.query = new GroupQuery(group, shape.headDim());
    this.partials = new Partial[group];
    Arrays.setAll(partials, g -> new Partial(shape.headDim()));
    this.exact = new ExactAttention(layer, head, kernels);
    this.scan = new SketchScan(layer, head, policy, kernels, query, partials);
    this.coded = new CodedAttention(layer, head, policy.residence(), kernels, query);
  }

  boolean dense() {
    return policy.dense();
  }

  boolean streamed() {
    return policy.streamed();
  }

  boolean sketched() {
    return policy.sketched() && layer.pages() > 0;
  }

  HeadPolicy policy() {
    return policy;
  }

  /** Takes the query and attends to the exact rows. */
  void begin(float[] queries, int queryAt, NewTokens newTokens, PassMemory memory) {
    exact.prefetch();
    query.load(queries, queryAt + head * group * shape.headDim(), sketched(), kernels);
    for (Partial partial : partials) {
      partial.clear();
    }
    scan.clear();
    coded.begin();
    coded.chosen.expect(scan.chosen(), 0);
    exact.attend(query, newTokens, partials);
    if (sketched()) {
      scan.begin(memory);
    }
  }

  /** Chooses among all ranges' candidates. */
  void choose(PassMemory memory) {
    scan.choose(memory);
    coded.chosen.expect(scan.chosen(), scan.chosenCount());
    coded.chosen.refine(scan.chosenMasses());
  }

  /** Tokens that the choice was made among; all of a streamed head. */
  int candidateCount() {
    return streamed() ? chosenCount() : scan.candidateCount();
  }

  int chosenCount() {
    return streamed() ? firstChosen(layer.pages()) : scan.chosenCount();
  }

  int chosenPosition(int index) {
    return streamed() ? layer.exact().sinkCount() + index : scan.chosen()[index];
  }

  /** A streamed head has no estimate. */
  float chosenMass(int index) {
    return streamed() ? 0 : scan.chosenMass(index);
  }

  /** Index of a page's first token among those of a streamed head: all but the sinks. */
  private int firstChosen(int page) {
    return Math.max(0, page * TOKENS - layer.exact().sinkCount());
  }

  /** Chosen tokens that have been attended to. */
  int attendedCount() {
    return streamed() ? firstChosen(coded.attended()) : coded.chosen.attended();
  }

  /** Attends to chosen tokens as far as their rows are there. */
  void attendRows(PassMemory memory, Tools tools) {
    coded.chosen.attend(memory.meanScores, tools);
  }

  /** Merges all parts. */
  void merge(float[] output, int outputAt, float[] lse, int lseAt, Tools tools) {
    int headDim = shape.headDim();
    for (int g = 0; g < group; g++) {
      coded.mergeInto(partials[g], g, tools);
      int qHead = head * group + g;
      System.arraycopy(partials[g].output(), 0, output, outputAt + qHead * headDim, headDim);
      lse[lseAt + qHead] = partials[g].lse();
    }
  }
}
