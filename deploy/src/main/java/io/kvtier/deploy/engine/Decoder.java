package io.kvtier.deploy.engine;

import java.util.Arrays;

/**
 * Runs a model: whole prompts into a {@link FullKvCache}, or steps of up to 64 tokens against any
 * {@link AttentionBackend}. Used by one thread; the prefill's threads are its own and end with
 * {@link #close}.
 */
public final class Decoder implements AutoCloseable {
  /** Tokens of one step at most. */
  public static final int STEP_TOKENS_MAX = 64;

  /** Queries of the prefill's end that can be handed out at most. */
  public static final int WINDOW_TOKENS_MAX = 64;

  /** Tokens that pass all layers together in a prefill. */
  private static final int CHUNK_TOKENS = 512;

  /** Tokens of one piece of a parallel projection. */
  private static final int PIECE_TOKENS = 64;

  private static final float[] NO_HINT = new float[0];

  private final LlamaModel model;
  private final LlamaConfig config;
  private final WorkerPool pool;
  private final BlockAttention[] workers;
  private Activations buffers;

  /** A decoder that prefills on every processor. */
  public Decoder(LlamaModel model) {
    this(model, Runtime.getRuntime().availableProcessors());
  }

  /** A decoder that prefills on {@code threads} threads, the caller's among them. */
  public Decoder(LlamaModel model, int threads) {
    if (threads < 1 || threads > 1024) {
      throw new IllegalArgumentException("threads is " + threads + ", must be within 1 to 1024");
    }
    this.model = model;
    this.config = model.config();
    this.pool = new WorkerPool(threads);
    this.workers = new BlockAttention[threads];
    Arrays.setAll(workers, _ -> new BlockAttention(config.headDim()));
    this.buffers = new Activations(config, 1);
  }

  /** The model it runs. */
  public LlamaModel model() {
    return model;
  }

  /**
   * Appends a prompt to a cache, in chunks of 512 tokens through all layers.
   *
   * @param cache may hold tokens already: the prompt continues them
   * @param ids at least one token
   * @param windowTokens how many of the last tokens' queries to keep, 0 to 64
   */
  public Prefill prefill(
      FullKvCache cache, int[] ids, int windowTokens, Prefill.Progress progress) {
    if (ids.length == 0) {
      throw new IllegalArgumentException("a prefill needs at least one token");
    }
    if (windowTokens < 0 || windowTokens > WINDOW_TOKENS_MAX) {
      throw new IllegalArgumentException(
          "windowTokens is %d, must be within 0 to %d".formatted(windowTokens, WINDOW_TOKENS_MAX));
    }
    int start = cache.tokens();
    int window = Math.min(windowTokens, ids.length);
    float[][] windowQueries = new float[config.layers()][window * config.qWidth()];
    cache.reserve(start + ids.length);
    Activations a = buffers;
    for (int done = 0; done < ids.length; done += a.tokens) {
      int end = Math.min(ids.length, done + CHUNK_TOKENS);
      a = begin(start + done, Arrays.copyOfRange(ids, done, end));
      for (int layer = 0; layer < config.layers(); layer++) {
        chunk(a, layer, start + done, cache);
        keepWindow(a, done, ids.length - window, windowQueries[layer]);
      }
      progress.tokensDone(end, ids.length);
    }
    return new Prefill(logits(a, a.tokens - 1), window, windowQueries);
  }

  private void chunk(Activations a, int layer, int position, FullKvCache cache) {
    int pieces = (a.tokens + PIECE_TOKENS - 1) / PIECE_TOKENS;
    pool.run(pieces, (piece, _) -> project(a, layer, from(piece), to(piece, a)));
    cache.append(layer, position, a.tokens, a.keys, a.values);
    cache.attendChunk(layer, position, a.tokens, a.queries, a.attended, pool, workers);
    pool.run(pieces, (piece, _) -> finish(a, layer, from(piece), to(piece, a)));
  }

  private static int from(int piece) {
    return piece * PIECE_TOKENS;
  }

  private static int to(int piece, Activations a) {
    return Math.min(a.tokens, (piece + 1) * PIECE_TOKENS);
  }

  /** Keeps those queries of a chunk, which starts at token {@code done}, that lie in the window. */
  private void keepWindow(Activations a, int done, int windowStart, float[] window) {
    int first = Math.max(done, windowStart);
    int count = done + a.tokens - first;
    if (count > 0) {
      int width = config.qWidth();
      System.arraycopy(
          a.queries, (first - done) * width, window, (first - windowStart) * width, count * width);
    }
  }

  /**
   * Runs 1 to 64 tokens with their attention in a backend.
   *
   * @param position position of the first token, which is the number of tokens the backend holds
   * @return logits after the last token, {@code [vocab]}; a new array
   */
  public float[] step(AttentionBackend backend, int position, int[] ids) {
    Activations a = forward(backend, position, ids);
    return logits(a, a.tokens - 1);
  }

  /** As {@link #step}, but returns logits after every token, {@code [tokens][vocab]}. */
  public float[] stepAll(AttentionBackend backend, int position, int[] ids) {
    Activations a = forward(backend, position, ids);
    model.finalNorm().apply(a.hidden, a.normed, 0, a.tokens);
    float[] logits = new float[a.tokens * config.vocabSize()];
    model.head().apply(a.normed, logits, 0, a.tokens);
    return logits;
  }

  /**
   * Feeds a prompt in steps of up to 64 tokens, then generates greedily. The last token returned
   * has not been fed: afterwards the backend holds {@code position + promptIds.length + tokens - 1}
   * tokens.
   *
   * @param position tokens the backend holds already
   * @param promptIds at least one token
   * @param tokens tokens to generate, at least 1; end-of-sequence ids do not stop it
   */
  public int[] greedy(AttentionBackend backend, int position, int[] promptIds, int tokens) {
    if (promptIds.length == 0 || tokens < 1) {
      throw new IllegalArgumentException(
          "greedy decoding of %d tokens from %d, both must be at least 1"
              .formatted(tokens, promptIds.length));
    }
    float[] logits = {};
    int fed = 0;
    while (fed < promptIds.length) {
      int end = Math.min(promptIds.length, fed + STEP_TOKENS_MAX);
      logits = step(backend, position + fed, Arrays.copyOfRange(promptIds, fed, end));
      fed = end;
    }
    int[] generated = new int[tokens];
    generated[0] = argmax(logits, 0, config.vocabSize());
    for (int i = 1; i < tokens; i++) {
      logits = step(backend, position + fed, new int[] {generated[i - 1]});
      generated[i] = argmax(logits, 0, config.vocabSize());
      fed++;
    }
    return generated;
  }

  /** Index, from {@code at}, of the largest of {@code length} logits; the first of equals. */
  public static int argmax(float[] logits, int at, int length) {
    int best = 0;
    for (int i = 1; i < length; i++) {
      if (logits[at + i] > logits[at + best]) {
        best = i;
      }
    }
    return best;
  }

  private Activations forward(AttentionBackend backend, int position, int[] ids) {
    if (ids.length < 1 || ids.length > STEP_TOKENS_MAX) {
      throw new IllegalArgumentException(
          "a step of %d tokens, must be within 1 to %d".formatted(ids.length, STEP_TOKENS_MAX));
    }
    Activations a = begin(position, ids);
    boolean hints = backend.wantsHints();
    for (int layer = 0; layer < config.layers(); layer++) {
      project(a, layer, 0, a.tokens);
      float[] hint = NO_HINT;
      if (hints && layer + 1 < config.layers()) {
        hint(a, layer + 1);
        hint = a.hint;
      }
      backend.attend(layer, position, a.tokens, a.queries, a.keys, a.values, hint, a.attended);
      finish(a, layer, 0, a.tokens);
    }
    return a;
  }

  /** Embeds tokens and computes the angles of their positions. */
  private Activations begin(int position, int[] ids) {
    if (position < 0) {
      throw new IllegalArgumentException("position is " + position + ", must not be negative");
    }
    if (buffers.tokens != ids.length) {
      buffers = new Activations(config, ids.length);
    }
    for (int token = 0; token < ids.length; token++) {
      model.embed(ids[token], buffers.hidden, token * config.hiddenSize());
    }
    model.rope().table(position, ids.length, buffers.cosines, buffers.sines);
    return buffers;
  }

  /** From the residual stream to rotated queries and keys, and values. */
  private void project(Activations a, int layer, int from, int to) {
    LlamaLayer weights = model.layer(layer);
    weights.inputNorm().apply(a.hidden, a.normed, from, to);
    weights.query().apply(a.normed, a.queries, from, to);
    weights.key().apply(a.normed, a.keys, from, to);
    weights.value().apply(a.normed, a.values, from, to);
    model.rope().rotate(a.queries, config.qHeads(), from, to, a.cosines, a.sines);
    model.rope().rotate(a.keys, config.kvHeads(), from, to, a.cosines, a.sines);
  }

  /**
   * The next layer's queries as predicted from this layer's input, since a residual stream changes
   * slowly from layer to layer (InfiniGen, arXiv 2406.19707; TailorKV, arXiv 2505.19586).
   */
  private void hint(Activations a, int nextLayer) {
    LlamaLayer weights = model.layer(nextLayer);
    weights.inputNorm().apply(a.hidden, a.normed, 0, a.tokens);
    weights.query().apply(a.normed, a.hint, 0, a.tokens);
    model.rope().rotate(a.hint, config.qHeads(), 0, a.tokens, a.cosines, a.sines);
  }

  /** From attention's output to the layer's. */
  private void finish(Activations a, int layer, int from, int to) {
    LlamaLayer weights = model.layer(layer);
    weights.output().apply(a.attended, a.added, from, to);
    addTo(a.hidden, a.added, from, to);
    weights.mlpNorm().apply(a.hidden, a.normed, from, to);
    weights.gate().apply(a.normed, a.gate, from, to);
    weights.up().apply(a.normed, a.up, from, to);
    SwiGlu.apply(a.gate, a.up, from * config.intermediateSize(), to * config.intermediateSize());
    weights.down().apply(a.gate, a.added, from, to);
    addTo(a.hidden, a.added, from, to);
  }

  private void addTo(float[] hidden, float[] added, int from, int to) {
    for (int i = from * config.hiddenSize(); i < to * config.hiddenSize(); i++) {
      hidden[i] += added[i];
    }
  }

  private float[] logits(Activations a, int token) {
    model.finalNorm().apply(a.hidden, a.normed, token, token + 1);
    float[] row =
        Arrays.copyOfRange(
            a.normed, token * config.hiddenSize(), (token + 1) * config.hiddenSize());
    float[] logits = new float[config.vocabSize()];
    model.head().apply(row, logits, 0, 1);
    return logits;
  }

  /** Ends the prefill's threads. Idempotent. */
  @Override
  public void close() {
    pool.close();
  }
}
