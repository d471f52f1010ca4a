package io.kvtier.client;

import com.google.protobuf.ByteString;
import com.google.protobuf.UnsafeByteOperations;
import io.kvtier.rpc.Tensors;
import io.kvtier.v1.Geometry;
import io.kvtier.v1.KvChunk;
import io.kvtier.v1.Tensor;
import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.function.Consumer;

/**
 * The keys and values that a session has sent and no tier has yet: each layer's window, its page
 * that has not filled, and pages on their way. What is sent is copied once, as it is on the wire,
 * into a ring of rows a layer; rings grow until they hold what is not durable and stay, so that
 * none of their memory is taken by a step. All rings together are bounded: where they are full, a
 * layer's oldest rows are dropped, and it cannot be brought back by itself until its pages are
 * stored. One thread.
 */
final class ReplayTail {
  private static final int ROWS_MIN = 64;
  private static final int CHUNK_TOKENS_MAX = 4096;
  private static final int CHUNK_BYTES_MAX = 4 << 20;

  private final Geometry geometry;
  private final int rowBytes;
  private final long bytesMax;
  private final Layer[] layers;
  private long bytes;

  /** Whether all layers come back alike, as those of a session with a plan do. */
  private boolean even;

  /** One layer's rows {@code begin..end-1}, row {@code t} at {@code t % rows}. */
  private static final class Layer {
    byte[] keys = {};
    byte[] values = {};
    int rows;
    int begin;
    int end;
    int durable;
  }

  /**
   * An empty tail.
   *
   * @param bytesMax most bytes of all rings
   */
  ReplayTail(Geometry geometry, long bytesMax) {
    this.geometry = geometry;
    this.rowBytes =
        geometry.getKvHeads() * geometry.getHeadDim() * Tensors.elementBytes(geometry.getKvDtype());
    this.bytesMax = bytesMax;
    this.layers = new Layer[geometry.getLayers()];
    Arrays.setAll(layers, layer -> new Layer());
  }

  /** Another tail with the same rows, in rings that are no larger than these need. */
  ReplayTail copy() {
    ReplayTail copy = new ReplayTail(geometry, bytesMax);
    copy.even = even;
    for (int layer = 0; layer < layers.length; layer++) {
      Layer from = layers[layer];
      Layer to = copy.layers[layer];
      to.begin = from.begin;
      to.end = from.end;
      to.durable = from.durable;
      int rows = from.rows == 0 ? 0 : ROWS_MIN;
      while (rows < from.end - from.begin) {
        rows *= 2;
      }
      copy.resize(to, from, rows);
    }
    return copy;
  }

  /** Gives a layer a ring of so many rows, with those of another, or its own, one. */
  private void resize(Layer to, Layer from, int rows) {
    byte[] keys = new byte[rows * rowBytes];
    byte[] values = new byte[rows * rowBytes];
    for (int row = from.begin; row < from.end; row++) {
      int at = row % from.rows * rowBytes;
      System.arraycopy(from.keys, at, keys, row % rows * rowBytes, rowBytes);
      System.arraycopy(from.values, at, values, row % rows * rowBytes, rowBytes);
    }
    bytes += 2L * (rows - to.rows) * rowBytes;
    to.keys = keys;
    to.values = values;
    to.rows = rows;
  }

  /** The session has its plan: from now on all its layers come back with as many tokens. */
  void comeBackEven() {
    even = true;
  }

  /** A layer has so many tokens, of which none need be kept: they are stored, or lost to us. */
  void begin(int layer, int tokens) {
    Layer of = layers[layer];
    of.begin = tokens;
    of.end = tokens;
  }

  /** Tokens that the service has of a layer, as far as we know. */
  int end(int layer) {
    return layers[layer].end;
  }

  /** First token of a layer that is kept. */
  int kept(int layer) {
    return layers[layer].begin;
  }

  /** Bytes of all rings. */
  long bytes() {
    return bytes;
  }

  /**
   * Keeps all rows of a message.
   *
   * @param position of the first; rows from there on that were kept before were refused
   */
  void append(int layer, int position, Tensor keys, Tensor values, int tokens) {
    Layer of = layers[layer];
    if (position > of.end) {
      begin(layer, position);
    }
    of.end = position;
    of.begin = Math.min(of.begin, position);
    ByteBuffer k = keys.getData().asReadOnlyByteBuffer();
    ByteBuffer v = values.getData().asReadOnlyByteBuffer();
    for (int token = 0; token < tokens; token++) {
      appendRow(of, k, v, token);
    }
  }

  /** Keeps one row of a message. */
  private void appendRow(Layer of, ByteBuffer keys, ByteBuffer values, int token) {
    if (of.end - of.begin == of.rows) {
      grow(of);
    }
    if (of.rows > 0) {
      int at = of.end % of.rows * rowBytes;
      keys.get(token * rowBytes, of.keys, at, rowBytes);
      values.get(token * rowBytes, of.values, at, rowBytes);
    } else {
      of.begin++;
    }
    of.end++;
  }

  /** Keeps some rows of a message. */
  void append(int layer, Tensor keys, Tensor values, Iterable<Integer> tokens) {
    ByteBuffer k = keys.getData().asReadOnlyByteBuffer();
    ByteBuffer v = values.getData().asReadOnlyByteBuffer();
    for (int token : tokens) {
      appendRow(layers[layer], k, v, token);
    }
  }

  /** Makes room for a row: a larger ring, or the oldest row's place. */
  private void grow(Layer of) {
    int wanted = Math.max(ROWS_MIN, 2 * of.rows);
    long more = 2L * (wanted - of.rows) * rowBytes;
    if ((long) wanted * rowBytes > Integer.MAX_VALUE - 64 || bytes + more > bytesMax) {
      of.begin += of.rows > 0 ? 1 : 0;
      return;
    }
    resize(of, of, wanted);
  }

  /**
   * The tier has a layer's first tokens.
   *
   * @param durable as an answer tells; may be less than told before
   */
  void durable(int layer, int durable) {
    Layer of = layers[layer];
    of.durable = Math.max(of.durable, durable);
    if (!even) {
      drop(of, of.durable);
      return;
    }
    int least = Integer.MAX_VALUE;
    for (Layer each : layers) {
      least = Math.min(least, each.durable);
    }
    for (Layer each : layers) {
      drop(each, least);
    }
  }

  private static void drop(Layer of, int to) {
    of.begin = Math.clamp(to, of.begin, of.end);
  }

  /** Gives the rows of a layer from a token on, in order, as chunks to be sent. */
  void replay(int layer, int from, Consumer<KvChunk> consumer) {
    Layer of = layers[layer];
    int position = from;
    while (position < of.end) {
      int most = Math.clamp(CHUNK_BYTES_MAX / rowBytes, 1, CHUNK_TOKENS_MAX);
      int tokens = Math.min(of.end - position, most);
      byte[] keys = new byte[tokens * rowBytes];
      byte[] values = new byte[tokens * rowBytes];
      for (int row = 0; row < tokens; row++) {
        int at = (position + row) % of.rows * rowBytes;
        System.arraycopy(of.keys, at, keys, row * rowBytes, rowBytes);
        System.arraycopy(of.values, at, values, row * rowBytes, rowBytes);
      }
      consumer.accept(
          KvChunk.newBuilder()
              .setLayer(layer)
              .setPosition(position)
              .setKeys(tensor(UnsafeByteOperations.unsafeWrap(keys), tokens))
              .setValues(tensor(UnsafeByteOperations.unsafeWrap(values), tokens))
              .build());
      position += tokens;
    }
  }

  private Tensor tensor(ByteString data, int tokens) {
    return Tensor.newBuilder()
        .setDtype(geometry.getKvDtype())
        .addShape(tokens)
        .addShape(geometry.getKvHeads())
        .addShape(geometry.getHeadDim())
        .setData(data)
        .build();
  }
}
