package io.kvtier.deploy.engine;

import java.util.Arrays;

/**
 * Exact causal attention of up to 64 (token, q head) pairs that share a KV head, tile by tile of 64
 * keys, as flash attention does (Dao et al., arXiv 2205.14135).
 *
 * <p>A column is one query: column c of a block is token (first + c) / group, q head (first + c) %
 * group, so a block shares its keys over the whole group. Lanes run over columns, which leaves no
 * horizontal sum anywhere and lets keys and values be read in the order in which they are cached.
 * Queries, scores and one tile each of keys and values take 64 KiB at head dim 64.
 */
final class BlockAttention {
  static final int COLUMNS = PanelKernel.COLUMNS;

  /** Keys of a tile. The cache's capacity is a multiple of it. */
  static final int TILE = 64;

  private final int headDim;
  private final float[] queries;
  private final float[] outputs;
  private final float[] scores = new float[TILE * COLUMNS];
  private final float[] maximum = new float[COLUMNS];
  private final float[] sum = new float[COLUMNS];
  private final float[] rescale = new float[COLUMNS];
  private final int[] lastKeys = new int[COLUMNS];

  /** Working arrays of one thread. */
  BlockAttention(int headDim) {
    this.headDim = headDim;
    this.queries = new float[headDim * COLUMNS];
    this.outputs = new float[headDim * COLUMNS];
  }

  /**
   * Attends columns {@code first} to {@code first + count - 1} of one KV head.
   *
   * @param queries {@code [tokens][qHeads][headDim]}, rotated
   * @param qHeads q heads of the layer
   * @param group q heads of a KV head
   * @param kvHead the KV head
   * @param position token i of {@code queries} sees keys 0 to position + stride * i
   * @param stride 1 for causal attention, 0 where all queries see the same keys
   * @param keys {@code [capacity][headDim]} of this KV head, capacity a multiple of 64
   * @param values {@code [capacity][headDim]}
   * @param output {@code [tokens][qHeads][headDim]}; only this block's rows are written
   */
  void attend(
      float[] queries,
      int qHeads,
      int group,
      int kvHead,
      int first,
      int count,
      int position,
      int stride,
      float[] keys,
      float[] values,
      float[] output) {
    gather(queries, qHeads, group, kvHead, first, count);
    show(first, count, group, position, stride);
    Arrays.fill(outputs, 0f);
    Arrays.fill(sum, 0f);
    // Not minus infinity: its difference with itself is not a number.
    Arrays.fill(maximum, -Float.MAX_VALUE);
    int visibleToAll = lastKeys[0] + 1;
    int visible = lastKeys[count - 1] + 1;
    for (int tile = 0; tile < visible; tile += TILE) {
      int rows = Math.min(TILE, visible - tile);
      int offset = tile * headDim;
      PanelKernel.multiply(
          rows,
          headDim,
          keys,
          offset,
          headDim,
          1,
          this.queries,
          0,
          PanelKernel.ZEROS,
          0,
          0,
          scores,
          0,
          COLUMNS);
      if (tile + rows > visibleToAll) {
        TileSoftmax.mask(scores, rows, tile, lastKeys);
      }
      if (TileSoftmax.update(scores, rows, maximum, sum, rescale)) {
        TileSoftmax.scaleColumns(outputs, headDim, rescale);
      }
      PanelKernel.multiply(
          headDim, rows, values, offset, 1, headDim, scores, 0, outputs, 0, COLUMNS, outputs, 0,
          COLUMNS);
    }
    scatter(output, qHeads, group, kvHead, first, count);
  }

  /**
   * Transposes this block's queries to {@code [headDim][64]}, scaled to scores in units of log2.
   */
  private void gather(float[] from, int qHeads, int group, int kvHead, int first, int count) {
    float scale = (float) (1 / Math.sqrt(headDim)) * TileSoftmax.LOG2_E;
    for (int column = 0; column < COLUMNS; column++) {
      // Columns beyond the last repeat it, so that the kernels need no other width.
      int query = first + Math.min(column, count - 1);
      int row = (query / group * qHeads + kvHead * group + query % group) * headDim;
      for (int d = 0; d < headDim; d++) {
        queries[d * COLUMNS + column] = from[row + d] * scale;
      }
    }
  }

  private void show(int first, int count, int group, int position, int stride) {
    for (int column = 0; column < COLUMNS; column++) {
      int token = (first + Math.min(column, count - 1)) / group;
      lastKeys[column] = position + stride * token;
    }
  }

  private void scatter(float[] to, int qHeads, int group, int kvHead, int first, int count) {
    for (int column = 0; column < count; column++) {
      int query = first + column;
      int row = (query / group * qHeads + kvHead * group + query % group) * headDim;
      float inverse = 1 / sum[column];
      for (int d = 0; d < headDim; d++) {
        to[row + d] = outputs[d * COLUMNS + column] * inverse;
      }
    }
  }
}
