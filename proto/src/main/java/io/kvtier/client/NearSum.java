package io.kvtier.client;

import io.kvtier.attention.Partial;
import io.kvtier.client.NearPages.Attended;
import io.kvtier.client.NearPages.Queries;
import io.kvtier.v1.PageMiss;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.function.IntUnaryOperator;

/**
 * Answers to the same queries over disjoint pages, merged in the order in which they are added. One
 * thread.
 */
final class NearSum {
  private final Partial[] partials;
  private final int headDim;
  private final List<PageMiss> misses = new ArrayList<>();
  private long tokens;
  private long bytesMoved;
  private int parts;

  NearSum(Queries queries) {
    this.headDim = queries.headDim();
    this.partials = new Partial[queries.kvHeads().size() * queries.group()];
    for (int row = 0; row < partials.length; row++) {
      partials[row] = new Partial(headDim);
    }
  }

  /**
   * Adds an answer.
   *
   * @param indexOf index, among all pages, of one of the answer's that is missed; -1: it has been
   *     asked for elsewhere
   */
  void add(Attended part, IntUnaryOperator indexOf) {
    for (int row = 0; row < partials.length; row++) {
      partials[row].merge(part.output(), row * headDim, 1, part.lse()[row]);
    }
    tokens += part.tokens();
    bytesMoved += part.bytesMoved();
    parts += part.parts();
    for (PageMiss miss : part.misses()) {
      int index = indexOf.applyAsInt(miss.getIndex());
      if (index >= 0) {
        misses.add(miss.toBuilder().setIndex(index).build());
      }
    }
  }

  Attended result() {
    float[] output = new float[partials.length * headDim];
    float[] lse = new float[partials.length];
    for (int row = 0; row < partials.length; row++) {
      System.arraycopy(partials[row].output(), 0, output, row * headDim, headDim);
      lse[row] = partials[row].lse();
    }
    misses.sort(Comparator.comparingInt(PageMiss::getIndex));
    return new Attended(output, lse, tokens, misses, bytesMoved, parts);
  }
}
