package io.kvtier.deploy.demo;

import com.google.protobuf.ByteString;
import io.kvtier.client.KvSession;
import io.kvtier.client.PrefillStream;
import io.kvtier.deploy.engine.FullKvCache;
import io.kvtier.deploy.engine.LlamaConfig;
import io.kvtier.deploy.engine.LlamaModel;
import io.kvtier.deploy.engine.Prefill;
import io.kvtier.v1.Dtype;
import io.kvtier.v1.Geometry;
import io.kvtier.v1.PrefillResponse;

/** What an engine does with its prompt: tells the KV cache's shape, and streams the cache in. */
public final class PromptStream {
  /** Queries of the prompt's end that the plan is made from. */
  public static final int QUERY_WINDOW = 32;

  private static final int CHUNK_TOKENS = 512;

  private PromptStream() {}

  /** The model's KV cache as kvtier is told of it: keys and values in bf16, stored by 4 bits. */
  public static Geometry geometry(LlamaModel model) {
    return geometry(model, 4);
  }

  /**
   * The same, stored by so many bits.
   *
   * @param codeBits 4 or 8
   */
  public static Geometry geometry(LlamaModel model, int codeBits) {
    LlamaConfig config = model.config();
    return Geometry.newBuilder()
        .setLayers(config.layers())
        .setQHeads(config.qHeads())
        .setKvHeads(config.kvHeads())
        .setHeadDim(config.headDim())
        .setKvDtype(Dtype.DTYPE_BF16)
        .setModelFingerprint(ByteString.copyFrom(model.fingerprint()))
        .setCodeBits(codeBits)
        .build();
  }

  /** Bytes of the full KV cache of so many tokens at 16 bits a value. */
  public static long fullBytes(LlamaConfig config, long tokens) {
    return tokens * config.layers() * config.kvHeads() * config.headDim() * 2 * Short.BYTES;
  }

  /**
   * Streams what a new session does not have of a cache's tokens, and the prompt's last queries.
   */
  public static PrefillResponse send(KvSession session, FullKvCache cache, Prefill prefill) {
    LlamaConfig config = cache.config();
    int tokens = cache.tokens();
    try (PrefillStream stream = session.prefill()) {
      for (int layer = 0; layer < config.layers(); layer++) {
        for (int at = session.reusedTokens(); at < tokens; at += CHUNK_TOKENS) {
          int n = Math.min(CHUNK_TOKENS, tokens - at);
          float[] keys = new float[n * config.kvWidth()];
          float[] values = new float[n * config.kvWidth()];
          cache.rows(layer, at, at + n, keys, values);
          stream.chunk(layer, at, n, keys, values);
        }
        stream.queries(layer, prefill.windowTokens(), prefill.windowQueries(layer));
      }
      return stream.finish(tokens);
    }
  }
}
