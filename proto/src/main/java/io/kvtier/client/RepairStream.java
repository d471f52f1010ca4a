package io.kvtier.client;

import io.kvtier.rpc.Tensors;
import io.kvtier.v1.Dtype;
import io.kvtier.v1.Geometry;
import io.kvtier.v1.KvChunk;
import io.kvtier.v1.PrefillRequest;
import io.kvtier.v1.PrefillResponse;

/** Rows of lost pages on their way in, each message acknowledged before the next. One thread. */
public final class RepairStream implements AutoCloseable {
  private static final int PAGE_TOKENS = 64;

  private final Duplex<PrefillRequest, PrefillResponse> stream;
  private final Geometry geometry;

  RepairStream(SessionLink link) {
    this.stream = link.openPrefill();
    this.geometry = link.session().getGeometry();
  }

  /**
   * Sends the rows of some whole pages of one layer, as they were sent before.
   *
   * @param position of the first token, a multiple of 64 within a missing range
   * @param tokens a multiple of 64, at most 4096
   * @param keys {@code [tokens][kvHeads][headDim]}, with positional rotation
   * @param values same shape
   */
  public void chunk(int layer, int position, int tokens, float[] keys, float[] values) {
    int heads = geometry.getKvHeads();
    int headDim = geometry.getHeadDim();
    Dtype dtype = geometry.getKvDtype();
    Tensors.requireElements("keys", keys, tokens, heads, headDim);
    Tensors.requireElements("values", values, tokens, heads, headDim);
    int length = heads * headDim;
    for (int from = 0; from < tokens; from += PAGE_TOKENS) {
      int count = Math.min(PAGE_TOKENS, tokens - from);
      stream.write(
          PrefillRequest.newBuilder()
              .setChunk(
                  KvChunk.newBuilder()
                      .setLayer(layer)
                      .setPosition(position + from)
                      .setKeys(Tensors.slice(dtype, keys, from * length, count, heads, headDim))
                      .setValues(Tensors.slice(dtype, values, from * length, count, heads, headDim))
                      .setRepair(true))
              .build());
      var _ = stream.read();
    }
  }

  @Override
  public void close() {
    stream.close();
  }
}
