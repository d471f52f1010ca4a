package io.kvtier.deploy.engine;

import java.util.Arrays;

/**
 * The baseline: every key and value of one sequence, in fp32, in this process, with exact
 * attention.
 *
 * <p>Each layer and KV head has its keys in one array {@code [capacity][headDim]} and its values in
 * another; capacity is a multiple of 64 and grows by doubling. Used by one thread, except that a
 * prefill spreads attention over its own.
 */
public final class FullKvCache implements AttentionBackend {
  /** Below this many queries for a KV head, one at a time is faster than a block of 64. */
  private static final int BLOCK_QUERIES_MIN = 12;

  private final LlamaConfig config;
  private final float[][][] keys;
  private final float[][][] values;
  private final int[] tokens;
  private final BlockAttention block;
  private float[] weights = new float[0];
  private int capacity;

  /** An empty cache. */
  public FullKvCache(LlamaConfig config) {
    this.config = config;
    this.keys = new float[config.layers()][config.kvHeads()][0];
    this.values = new float[config.layers()][config.kvHeads()][0];
    this.tokens = new int[config.layers()];
    this.block = new BlockAttention(config.headDim());
  }

  /** The shape this cache was made for. */
  public LlamaConfig config() {
    return config;
  }

  /** Tokens that all layers hold. */
  public int tokens() {
    return Arrays.stream(tokens).min().orElse(0);
  }

  /** Tokens that one layer holds; during a step, earlier layers are ahead of later ones. */
  public int tokens(int layer) {
    return tokens[layer];
  }

  /** Bytes of the cached keys and values, spare capacity not counted. */
  public long bytes() {
    return Arrays.stream(tokens).mapToLong(n -> 8L * n * config.kvWidth()).sum();
  }

  /**
   * Makes room for {@code total} tokens at once, which a long prefill would else reach by copies.
   */
  public void reserve(int total) {
    if (total <= capacity) {
      return;
    }
    int tile = BlockAttention.TILE;
    int most = (Integer.MAX_VALUE - 8) / config.headDim() / tile * tile;
    if (total > most) {
      throw new IllegalArgumentException(
          "%d tokens of head dim %d exceed an array; at most %d tokens fit"
              .formatted(total, config.headDim(), most));
    }
    long rounded = (Math.max(total, 2L * capacity) + tile - 1) / tile * tile;
    capacity = (int) Math.min(rounded, most);
    for (int layer = 0; layer < config.layers(); layer++) {
      for (int head = 0; head < config.kvHeads(); head++) {
        keys[layer][head] = Arrays.copyOf(keys[layer][head], capacity * config.headDim());
        values[layer][head] = Arrays.copyOf(values[layer][head], capacity * config.headDim());
      }
    }
  }

  /**
   * Appends tokens to one layer.
   *
   * @param position must equal {@code tokens(layer)}
   * @param newKeys {@code [count][kvHeads][headDim]}, rotated; copied
   * @param newValues {@code [count][kvHeads][headDim]}; copied
   */
  public void append(int layer, int position, int count, float[] newKeys, float[] newValues) {
    if (position != tokens[layer]) {
      throw new IllegalArgumentException(
          "layer %d holds %d tokens, cannot append at position %d"
              .formatted(layer, tokens[layer], position));
    }
    reserve(position + count);
    int dim = config.headDim();
    for (int token = 0; token < count; token++) {
      for (int head = 0; head < config.kvHeads(); head++) {
        int from = token * config.kvWidth() + head * dim;
        int to = (position + token) * dim;
        System.arraycopy(newKeys, from, keys[layer][head], to, dim);
        System.arraycopy(newValues, from, values[layer][head], to, dim);
      }
    }
    tokens[layer] += count;
  }

  @Override
  public void attend(
      int layer,
      int position,
      int count,
      float[] queries,
      float[] newKeys,
      float[] newValues,
      float[] hint,
      float[] output) {
    append(layer, position, count, newKeys, newValues);
    attendOnly(layer, position, count, queries, output);
  }

  /**
   * Exact attention without appending: query i sees cached tokens 0 to {@code position + i}.
   *
   * @param queries {@code [count][qHeads][headDim]}, rotated
   * @param output {@code [count][qHeads][headDim]}, overwritten
   */
  public void attendOnly(int layer, int position, int count, float[] queries, float[] output) {
    attend(layer, position, 1, count, queries, output);
  }

  /** As {@link #attendOnly}, but every query sees the first {@code visible} tokens and no more. */
  public void attendFirst(int layer, int visible, int count, float[] queries, float[] output) {
    attend(layer, visible - 1, 0, count, queries, output);
  }

  private void attend(
      int layer, int position, int stride, int count, float[] queries, float[] output) {
    int last = position + stride * (count - 1);
    if (count < 1 || position < 0 || last >= tokens[layer]) {
      throw new IllegalArgumentException(
          "%d queries up to position %d of layer %d, which holds %d tokens"
              .formatted(count, last, layer, tokens[layer]));
    }
    int columns = count * config.group();
    for (int head = 0; head < config.kvHeads(); head++) {
      if (columns < BLOCK_QUERIES_MIN) {
        rows(layer, head, position, stride, count, queries, output);
      } else {
        for (int first = 0; first < columns; first += BlockAttention.COLUMNS) {
          block(block, layer, head, first, position, stride, count, queries, output);
        }
      }
    }
  }

  private void rows(
      int layer, int kvHead, int position, int stride, int count, float[] queries, float[] output) {
    if (weights.length < capacity) {
      weights = new float[capacity];
    }
    for (int token = 0; token < count; token++) {
      for (int member = 0; member < config.group(); member++) {
        int at = token * config.qWidth() + (kvHead * config.group() + member) * config.headDim();
        RowAttention.attend(
            queries,
            at,
            config.headDim(),
            keys[layer][kvHead],
            values[layer][kvHead],
            position + stride * token + 1,
            weights,
            output,
            at);
      }
    }
  }

  private void block(
      BlockAttention worker,
      int layer,
      int kvHead,
      int first,
      int position,
      int stride,
      int count,
      float[] queries,
      float[] output) {
    int columns = Math.min(BlockAttention.COLUMNS, count * config.group() - first);
    worker.attend(
        queries,
        config.qHeads(),
        config.group(),
        kvHead,
        first,
        columns,
        position,
        stride,
        keys[layer][kvHead],
        values[layer][kvHead],
        output);
  }

  /** Causal attention of a prefill's chunk over a pool; {@code workers} has one entry a thread. */
  void attendChunk(
      int layer,
      int position,
      int count,
      float[] queries,
      float[] output,
      WorkerPool pool,
      BlockAttention[] workers) {
    int columns = count * config.group();
    int blocks = (columns + BlockAttention.COLUMNS - 1) / BlockAttention.COLUMNS;
    pool.run(
        blocks * config.kvHeads(),
        (piece, worker) -> {
          int first = piece / config.kvHeads() * BlockAttention.COLUMNS;
          int head = piece % config.kvHeads();
          block(workers[worker], layer, head, first, position, 1, count, queries, output);
        });
  }

  /**
   * Copies tokens {@code from} to {@code to - 1} of one layer out.
   *
   * @param keysOut {@code [to - from][kvHeads][headDim]}, overwritten
   * @param valuesOut {@code [to - from][kvHeads][headDim]}, overwritten
   */
  public void rows(int layer, int from, int to, float[] keysOut, float[] valuesOut) {
    if (from < 0 || to < from || to > tokens[layer]) {
      throw new IllegalArgumentException(
          "tokens %d to %d of layer %d, which holds %d".formatted(from, to, layer, tokens[layer]));
    }
    int dim = config.headDim();
    for (int token = from; token < to; token++) {
      for (int head = 0; head < config.kvHeads(); head++) {
        int at = (token - from) * config.kvWidth() + head * dim;
        System.arraycopy(keys[layer][head], token * dim, keysOut, at, dim);
        System.arraycopy(values[layer][head], token * dim, valuesOut, at, dim);
      }
    }
  }

  /** Forgets all tokens from {@code count} on; a layer that holds fewer stays as it is. */
  public void truncate(int count) {
    if (count < 0) {
      throw new IllegalArgumentException("cannot truncate to " + count + " tokens");
    }
    for (int layer = 0; layer < tokens.length; layer++) {
      tokens[layer] = Math.min(tokens[layer], count);
    }
  }

  /** A copy that goes its own way. */
  public FullKvCache fork() {
    FullKvCache copy = new FullKvCache(config);
    copy.reserve(Arrays.stream(tokens).max().orElse(0));
    for (int layer = 0; layer < tokens.length; layer++) {
      copy.tokens[layer] = tokens[layer];
      for (int head = 0; head < config.kvHeads(); head++) {
        int length = tokens[layer] * config.headDim();
        System.arraycopy(keys[layer][head], 0, copy.keys[layer][head], 0, length);
        System.arraycopy(values[layer][head], 0, copy.values[layer][head], 0, length);
      }
    }
    return copy;
  }
}
