package io.kvtier.gpuworker.session;

import org.jspecify.annotations.Nullable;

/**
 * The keys and values that the queries of one step attend to beside what their layer has: first
 * those of accepted tokens, which each query sees, then those of the step's own tokens: all up to
 * the query's own, or in a tree its ancestors and itself, moved together. So a pass needs no mask.
 * One thread.
 */
final class NewRows {
  private final int before;
  private final @Nullable TokenTree tree;
  private float[] keys;
  private float[] values;
  private int count;

  private NewRows(int before, @Nullable TokenTree tree, float[] keys, float[] values) {
    this.before = before;
    this.tree = tree;
    this.keys = keys;
    this.values = values;
  }

  /**
   * Rows of a step.
   *
   * @param waiting the layer's tree that the step's accepted nodes are of; null: there is none
   * @param tree the step's own; null: its tokens follow each other
   */
  static NewRows of(
      TokenStep step, @Nullable TokenTree waiting, @Nullable TokenTree tree, int rowLength) {
    int[] accepted = step.accepted();
    int before = step.acceptedCount();
    int own = tree == null ? step.tokens() : tree.depth();
    if (before == 0 && tree == null) {
      return new NewRows(0, null, step.keys(), step.values());
    }
    float[] keys = new float[(before + own) * rowLength];
    float[] values = new float[keys.length];
    if (waiting != null && accepted != null) {
      waiting.copyKeys(accepted, keys, 0);
      waiting.copyValues(accepted, values, 0);
    }
    if (tree == null) {
      System.arraycopy(step.keys(), 0, keys, before * rowLength, own * rowLength);
      System.arraycopy(step.values(), 0, values, before * rowLength, own * rowLength);
    }
    return new NewRows(before, tree, keys, values);
  }

  /** Brings the rows of one query together; those of the query before are gone. */
  void select(int token) {
    if (tree == null) {
      count = before + token + 1;
      return;
    }
    int[] path = tree.pathTo(token);
    tree.copyKeys(path, keys, before);
    tree.copyValues(path, values, before);
    count = before + path.length;
  }

  /** {@code [count][kvHeads][headDim]} of the query selected last, and room behind. */
  float[] keys() {
    return keys;
  }

  float[] values() {
    return values;
  }

  int count() {
    return count;
  }

  /** Rows that are appended once the step is served: the accepted ones, and own ones of no tree. */
  int appended(int tokens) {
    return before + (tree == null ? tokens : 0);
  }
}
