package io.kvtier.client;

import io.grpc.ManagedChannel;
import io.grpc.StatusRuntimeException;
import io.kvtier.rpc.Statuses;
import io.kvtier.rpc.Tensors;
import io.kvtier.v1.AttentionGrpc;
import io.kvtier.v1.Dtype;
import io.kvtier.v1.GatherRequest;
import io.kvtier.v1.GatheredHead;
import io.kvtier.v1.Geometry;
import io.kvtier.v1.LoadRequest;
import io.kvtier.v1.LoadResponse;
import io.kvtier.v1.Session;
import io.kvtier.v1.StreamOpen;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;

/**
 * An open session. For one thread at a time. {@link #close} ends the session on the service too;
 * closing twice is harmless.
 */
public final class KvSession implements AutoCloseable {
  /** Most tokens a KV head that can be gathered. */
  public static final int GATHER_TOKENS_MAX = 4096;

  private final KvtierClient client;
  private final Session session;
  private final ManagedChannel channel;
  private final String peer;
  private boolean closed;

  KvSession(KvtierClient client, Session session) {
    this.client = client;
    this.session = session;
    this.channel = client.worker(session.getWorkerTarget());
    this.peer = "the worker at " + session.getWorkerTarget();
  }

  /** The session as it was opened. */
  public Session info() {
    return session;
  }

  /**
   * First tokens that the session has from the start, since another one stored their pages: the
   * prefill begins behind them.
   */
  public int reusedTokens() {
    return session.getReusedTokens();
  }

  /**
   * Starts to stream a prompt's keys and values in, or goes on after a broken stream or after
   * decoding.
   */
  public PrefillStream prefill() {
    return new PrefillStream(
        new Duplex<>(AttentionGrpc.newBlockingV2Stub(channel).prefill(), peer, client.timeout()),
        session,
        streamOpen());
  }

  /** Starts to decode; the session's prefill must be finished. */
  public DecodeStream decode() {
    return new DecodeStream(
        new Duplex<>(AttentionGrpc.newBlockingV2Stub(channel).decode(), peer, client.timeout()),
        session,
        streamOpen());
  }

  private StreamOpen streamOpen() {
    return StreamOpen.newBuilder()
        .setSessionId(session.getSessionId())
        .setEpoch(session.getEpoch())
        .build();
  }

  /** A second session that starts with all tokens of this one and shares its pages. */
  public KvSession fork() {
    return client.fork(session);
  }

  /**
   * The tokens that dominate a query's attention, with their keys and values, one entry a KV head.
   *
   * @param query {@code [qHeads][headDim]}
   * @param tokensMax most tokens a KV head, 1..4096
   */
  public List<GatheredHead> gather(int layer, float[] query, int tokensMax) {
    return gather(layer, query, tokensMax, false);
  }

  /**
   * The tokens that a decode step would attend to for a query under the session's plan, at most
   * {@link #GATHER_TOKENS_MAX} a KV head.
   *
   * @param query {@code [qHeads][headDim]}
   */
  public List<GatheredHead> gatherAsPlanned(int layer, float[] query) {
    return gather(layer, query, GATHER_TOKENS_MAX, true);
  }

  private List<GatheredHead> gather(int layer, float[] query, int tokensMax, boolean asPlanned) {
    Geometry geometry = session.getGeometry();
    GatherRequest request =
        GatherRequest.newBuilder()
            .setSessionId(session.getSessionId())
            .setEpoch(session.getEpoch())
            .setLayer(layer)
            .setQuery(
                Tensors.of(Dtype.DTYPE_FP32, query, geometry.getQHeads(), geometry.getHeadDim()))
            .setTokensMax(tokensMax)
            .setAsPlanned(asPlanned)
            .build();
    try {
      return AttentionGrpc.newBlockingStub(channel)
          .withDeadlineAfter(client.timeout().toNanos(), TimeUnit.NANOSECONDS)
          .gather(request)
          .getHeadsList();
    } catch (StatusRuntimeException e) {
      throw Statuses.fromStatus(e, peer);
    }
  }

  /** A token range's keys and values, in order of position, at most a page's 64 tokens an entry. */
  public List<LoadResponse> load(int layer, int position, int tokens) {
    LoadRequest request =
        LoadRequest.newBuilder()
            .setSessionId(session.getSessionId())
            .setEpoch(session.getEpoch())
            .setLayer(layer)
            .setPosition(position)
            .setTokens(tokens)
            .build();
    List<LoadResponse> parts = new ArrayList<>();
    try (Duplex<?, LoadResponse> stream =
        new Duplex<>(
            AttentionGrpc.newBlockingV2Stub(channel).load(request), peer, client.timeout())) {
      for (LoadResponse part = stream.readOrEnd(); part != null; part = stream.readOrEnd()) {
        parts.add(part);
      }
    }
    return parts;
  }

  @Override
  public void close() {
    if (!closed) {
      closed = true;
      client.closeSession(session);
    }
  }
}
