package io.kvtier.gpuworker.session;

import static io.kvtier.KvtierException.invalid;

import java.util.Arrays;

/**
 * Tokens of which each follows another one or the context, and of which one path may come true
 * (speculative decoding with a tree mask: SpecInfer, arXiv 2305.09781). Immutable.
 */
final class TokenTree {
  static final int NO_PARENT = -1;

  private final int[] parents;
  private final float[] keys;
  private final float[] values;
  private final int rowLength;

  /**
   * A tree.
   *
   * @param parents one a token: its parent's index, below its own, or {@link #NO_PARENT}
   * @param keys {@code [tokens][rowLength]}; kept, like values
   * @throws io.kvtier.KvtierException INVALID if a parent does not come before its child
   */
  TokenTree(int[] parents, float[] keys, float[] values, int rowLength) {
    for (int i = 0; i < parents.length; i++) {
      if (parents[i] < NO_PARENT || parents[i] >= i) {
        throw invalid(
            "parents[%d] is %d; it must be -1..%d: a parent comes before its children",
            i, parents[i], i - 1);
      }
    }
    this.parents = parents;
    this.keys = keys;
    this.values = values;
    this.rowLength = rowLength;
  }

  int tokens() {
    return parents.length;
  }

  /** A token's ancestors and itself, from the root on. */
  int[] pathTo(int token) {
    int length = 0;
    for (int node = token; node != NO_PARENT; node = parents[node]) {
      length++;
    }
    int[] path = new int[length];
    for (int node = token; node != NO_PARENT; node = parents[node]) {
      path[--length] = node;
    }
    return path;
  }

  /** Tokens of the longest path. */
  int depth() {
    int[] depths = new int[parents.length];
    for (int i = 0; i < parents.length; i++) {
      depths[i] = parents[i] == NO_PARENT ? 1 : depths[parents[i]] + 1;
    }
    return Arrays.stream(depths).max().orElse(0);
  }

  /**
   * Checks that nodes are a path from a root.
   *
   * @throws io.kvtier.KvtierException INVALID with the first that is not
   */
  void requirePath(int[] nodes) {
    int last = NO_PARENT;
    for (int i = 0; i < nodes.length; i++) {
      int node = nodes[i];
      if (node < 0 || node >= parents.length) {
        throw invalid(
            "accepted[%d] is %s; it must be 0..%d, a token of the tree that waits",
            i, Integer.toUnsignedString(node), parents.length - 1);
      }
      if (parents[node] != last) {
        throw invalid(
            "accepted[%d] is %d, whose parent is %d; it must be a child of %d (-1: the context)",
            i, node, parents[node], last);
      }
      last = node;
    }
  }

  /** Copies the keys of nodes, {@code [nodes][rowLength]}, to {@code into} from a row on. */
  void copyKeys(int[] nodes, float[] into, int row) {
    copy(keys, nodes, into, row);
  }

  /** The same with values. */
  void copyValues(int[] nodes, float[] into, int row) {
    copy(values, nodes, into, row);
  }

  private void copy(float[] from, int[] nodes, float[] into, int row) {
    for (int i = 0; i < nodes.length; i++) {
      System.arraycopy(from, nodes[i] * rowLength, into, (row + i) * rowLength, rowLength);
    }
  }
}
