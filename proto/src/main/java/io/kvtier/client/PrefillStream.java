package io.kvtier.client;

import io.kvtier.KvtierException;
import io.kvtier.rpc.Tensors;
import io.kvtier.v1.Dtype;
import io.kvtier.v1.Geometry;
import io.kvtier.v1.KvChunk;
import io.kvtier.v1.PrefillFinish;
import io.kvtier.v1.PrefillRequest;
import io.kvtier.v1.PrefillResponse;
import io.kvtier.v1.QueryWindow;
import io.kvtier.v1.Session;
import io.kvtier.v1.StreamOpen;

/**
 * A prompt on its way in. Messages are acknowledged with some delay, so that the stream stays full;
 * a refusal comes with a later call.
 */
public final class PrefillStream implements AutoCloseable {
  /** Messages on their way before an acknowledgement is waited for. */
  private static final int IN_FLIGHT_MAX = 8;

  private static final int CHUNK_TOKENS_MAX = 4096;

  /**
   * A chunk is sent in several messages where its keys take more: messages stay far below their
   * bound.
   */
  private static final int TENSOR_BYTES_MAX = 8 << 20;

  private final Duplex<PrefillRequest, PrefillResponse> stream;
  private final Geometry geometry;
  private int inFlight;
  private PrefillResponse last = PrefillResponse.getDefaultInstance();

  PrefillStream(Duplex<PrefillRequest, PrefillResponse> stream, Session session, StreamOpen open) {
    this.stream = stream;
    this.geometry = session.getGeometry();
    send(PrefillRequest.newBuilder().setOpen(open).build());
  }

  /**
   * Sends some tokens' keys and values of one layer, rounded to the session's dtype.
   *
   * @param position of the first token: exactly the number of tokens the layer already has
   * @param tokens 1..4096
   * @param keys {@code [tokens][kvHeads][headDim]}, with positional rotation
   * @param values same shape
   */
  public void chunk(int layer, int position, int tokens, float[] keys, float[] values) {
    int rowLength = geometry.getKvHeads() * geometry.getHeadDim();
    KvtierException.requireInRange("tokens", tokens, 1, CHUNK_TOKENS_MAX);
    Tensors.requireElements("keys", keys, tokens, rowLength);
    Tensors.requireElements("values", values, tokens, rowLength);
    int tokensMax =
        Math.max(1, TENSOR_BYTES_MAX / (rowLength * Tensors.elementBytes(geometry.getKvDtype())));
    for (int from = 0; from < tokens; from += tokensMax) {
      int count = Math.min(tokens - from, tokensMax);
      sendChunk(layer, position + from, count, keys, values, from * rowLength);
    }
  }

  private void sendChunk(
      int layer, int position, int tokens, float[] keys, float[] values, int from) {
    int heads = geometry.getKvHeads();
    int headDim = geometry.getHeadDim();
    Dtype dtype = geometry.getKvDtype();
    send(
        PrefillRequest.newBuilder()
            .setChunk(
                KvChunk.newBuilder()
                    .setLayer(layer)
                    .setPosition(position)
                    .setKeys(Tensors.slice(dtype, keys, from, tokens, heads, headDim))
                    .setValues(Tensors.slice(dtype, values, from, tokens, heads, headDim)))
            .build());
  }

  /**
   * Sends the prompt's last queries of one layer, after the layer's last chunk.
   *
   * @param window tokens, 1..64
   * @param queries {@code [window][qHeads][headDim]}, with positional rotation
   */
  public void queries(int layer, int window, float[] queries) {
    Tensors.requireElements(
        "queries", queries, window, geometry.getQHeads(), geometry.getHeadDim());
    send(
        PrefillRequest.newBuilder()
            .setQueries(
                QueryWindow.newBuilder()
                    .setLayer(layer)
                    .setQueries(
                        Tensors.of(
                            Dtype.DTYPE_FP32,
                            queries,
                            window,
                            geometry.getQHeads(),
                            geometry.getHeadDim())))
            .build());
  }

  /**
   * Ends the prompt: waits until its pages are stored and the plan is made.
   *
   * @param tokens tokens that every layer must have by now
   * @return the plan and the session's bytes
   */
  public PrefillResponse finish(int tokens) {
    send(
        PrefillRequest.newBuilder()
            .setFinish(PrefillFinish.newBuilder().setTokens(tokens))
            .build());
    stream.finish();
    while (inFlight > 0) {
      receive();
    }
    return last;
  }

  private void send(PrefillRequest request) {
    if (inFlight == IN_FLIGHT_MAX) {
      receive();
    }
    stream.write(request);
    inFlight++;
  }

  private void receive() {
    last = stream.read();
    inFlight--;
  }

  @Override
  public void close() {
    stream.close();
  }
}
