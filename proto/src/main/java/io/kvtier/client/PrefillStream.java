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
import java.util.SortedMap;
import java.util.TreeMap;
import org.jspecify.annotations.Nullable;

/**
 * A prompt on its way in. Messages are acknowledged with some delay, so that the stream stays full;
 * a refusal comes with a later call. When the worker fails, what was sent and is not stored is sent
 * again to the session's next one.
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

  private final SessionLink link;
  private final Geometry geometry;

  /** Last queries sent on this stream, by layer. */
  private final SortedMap<Integer, PrefillRequest> queries = new TreeMap<>();

  private @Nullable Duplex<PrefillRequest, PrefillResponse> stream;
  private int inFlight;
  private PrefillResponse last = PrefillResponse.getDefaultInstance();

  PrefillStream(SessionLink link) {
    this.link = link;
    this.geometry = link.session().getGeometry();
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
    KvChunk chunk =
        KvChunk.newBuilder()
            .setLayer(layer)
            .setPosition(position)
            .setKeys(Tensors.slice(dtype, keys, from, tokens, heads, headDim))
            .setValues(Tensors.slice(dtype, values, from, tokens, heads, headDim))
            .build();
    // Kept before it is sent: it may have arrived though its sending failed.
    ReplayTail tail = link.tail();
    if (tail != null) {
      tail.append(layer, position, chunk.getKeys(), chunk.getValues(), tokens);
    }
    send(PrefillRequest.newBuilder().setChunk(chunk).build());
  }

  /**
   * Sends the prompt's last queries of one layer, after the layer's last chunk.
   *
   * @param window tokens, 1..64
   * @param lastQueries {@code [window][qHeads][headDim]}, with positional rotation
   */
  public void queries(int layer, int window, float[] lastQueries) {
    Tensors.requireElements(
        "queries", lastQueries, window, geometry.getQHeads(), geometry.getHeadDim());
    PrefillRequest request =
        PrefillRequest.newBuilder()
            .setQueries(
                QueryWindow.newBuilder()
                    .setLayer(layer)
                    .setQueries(
                        Tensors.of(
                            Dtype.DTYPE_FP32,
                            lastQueries,
                            window,
                            geometry.getQHeads(),
                            geometry.getHeadDim())))
            .build();
    queries.put(layer, request);
    send(request);
  }

  /**
   * Ends the prompt: waits until its pages are stored and the plan is made.
   *
   * @param tokens tokens that every layer must have by now
   * @return the plan and the session's bytes
   */
  public PrefillResponse finish(int tokens) {
    return finish(PrefillFinish.newBuilder().setTokens(tokens).build());
  }

  /**
   * Ends the prompt as {@link #finish} does, ahead of its pages: they are stored while the engine
   * decodes, and kept here until they are. Until then they can neither be reused nor survive both
   * the worker and this client.
   */
  public PrefillResponse finishAhead(int tokens) {
    return finish(PrefillFinish.newBuilder().setTokens(tokens).setAhead(true).build());
  }

  private PrefillResponse finish(PrefillFinish how) {
    PrefillRequest finish = PrefillRequest.newBuilder().setFinish(how).build();
    recovering(() -> {
      write(finish);
      open().finish();
      receive(0);
    });
    queries.clear();
    ReplayTail tail = link.tail();
    if (tail != null) {
      tail.comeBackEven();
    }
    return last;
  }

  private void send(PrefillRequest request) {
    boolean[] kept = {false};
    recovering(() -> {
      // Once the session has been resumed, it has every chunk and all queries.
      if (!kept[0]) {
        kept[0] = link.tail() != null;
        write(request);
      }
    });
  }

  private void write(PrefillRequest request) {
    receive(IN_FLIGHT_MAX - 1);
    open().write(request);
    inFlight++;
  }

  private void receive(int most) {
    while (inFlight > most) {
      last = open().read();
      inFlight--;
      ReplayTail tail = link.tail();
      if (tail != null) {
        tail.durable(last.getLayer(), last.getDurableTokens());
        for (int layer = 0; layer < last.getLayerDurableTokensCount(); layer++) {
          tail.durable(layer, last.getLayerDurableTokens(layer));
        }
      }
    }
  }

  private Duplex<PrefillRequest, PrefillResponse> open() {
    Duplex<PrefillRequest, PrefillResponse> opened = stream;
    if (opened == null) {
      opened = link.openPrefill();
      stream = opened;
    }
    return opened;
  }

  /** Does something, again on a new stream if the worker fails. */
  private void recovering(Runnable call) {
    long deadlineNs = link.deadlineNs();
    boolean resumed = false;
    while (true) {
      try {
        if (resumed) {
          queries.values().forEach(this::write);
          resumed = false;
        }
        call.run();
        return;
      } catch (KvtierException e) {
        if (!link.recoversFrom(e) || System.nanoTime() > deadlineNs) {
          throw e;
        }
        close();
        stream = null;
        inFlight = 0;
        link.recover(e, deadlineNs);
        resumed = true;
      }
    }
  }

  @Override
  public void close() {
    Duplex<PrefillRequest, PrefillResponse> opened = stream;
    if (opened != null) {
      opened.close();
    }
  }
}
