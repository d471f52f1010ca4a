package io.kvtier.client;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.rpc.Tensors;
import io.kvtier.v1.DecodeRequest;
import io.kvtier.v1.DecodeResponse;
import io.kvtier.v1.DecodeStep;
import io.kvtier.v1.Dtype;
import io.kvtier.v1.Geometry;
import io.kvtier.v1.Session;
import io.kvtier.v1.StreamOpen;

/** Decodes a session, one layer of one step at a time. */
public final class DecodeStream implements AutoCloseable {
  private final Duplex<DecodeRequest, DecodeResponse> stream;
  private final Geometry geometry;

  DecodeStream(Duplex<DecodeRequest, DecodeResponse> stream, Session session, StreamOpen open) {
    this.stream = stream;
    this.geometry = session.getGeometry();
    stream.write(DecodeRequest.newBuilder().setOpen(open).build());
  }

  /**
   * Appends new tokens to one layer and lets each attend to all tokens up to itself.
   *
   * @param position of the first new token: exactly the number of tokens the layer already has
   * @param tokens 1..64
   * @param queries {@code [tokens][qHeads][headDim]}, with positional rotation
   * @param keys {@code [tokens][kvHeads][headDim]}, rounded to the session's dtype
   * @param values same shape as keys
   * @param hint predicted queries of the next layer, in the shape of queries; empty: none
   * @param output receives {@code [tokens][qHeads][headDim]}
   * @return what the step cost, with everything else the worker tells
   */
  public DecodeResponse step(
      int layer,
      int position,
      int tokens,
      float[] queries,
      float[] keys,
      float[] values,
      float[] hint,
      float[] output) {
    int qHeads = geometry.getQHeads();
    int kvHeads = geometry.getKvHeads();
    int headDim = geometry.getHeadDim();
    Dtype kvDtype = geometry.getKvDtype();
    // Before anything is sent: what has been appended cannot be sent again.
    Tensors.requireElements("queries", queries, tokens, qHeads, headDim);
    Tensors.requireElements("keys", keys, tokens, kvHeads, headDim);
    Tensors.requireElements("values", values, tokens, kvHeads, headDim);
    Tensors.requireElements("output", output, tokens, qHeads, headDim);
    if (hint.length > 0) {
      Tensors.requireElements("hint", hint, tokens, qHeads, headDim);
    }
    DecodeStep.Builder step =
        DecodeStep.newBuilder()
            .setLayer(layer)
            .setPosition(position)
            .setQueries(Tensors.of(Dtype.DTYPE_FP32, queries, tokens, qHeads, headDim))
            .setKeys(Tensors.of(kvDtype, keys, tokens, kvHeads, headDim))
            .setValues(Tensors.of(kvDtype, values, tokens, kvHeads, headDim));
    if (hint.length > 0) {
      step.setHint(Tensors.of(Dtype.DTYPE_FP32, hint, tokens, qHeads, headDim));
    }
    stream.write(DecodeRequest.newBuilder().setStep(step).build());
    DecodeResponse response = stream.read();
    if (response.getLayer() != layer || response.getPosition() != position) {
      throw new KvtierException(
          Code.INTERNAL,
          "asked for layer %d at position %d, answered layer %d at position %d"
              .formatted(layer, position, response.getLayer(), response.getPosition()));
    }
    float[] attended = Tensors.toFloats("output", response.getOutput(), tokens, qHeads, headDim);
    System.arraycopy(attended, 0, output, 0, attended.length);
    return response;
  }

  @Override
  public void close() {
    stream.close();
  }
}
