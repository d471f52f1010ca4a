package io.kvtier.client;

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
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;
import org.jspecify.annotations.Nullable;

/**
 * An open session. For one thread at a time. {@link #close} ends the session on the service too;
 * closing twice is harmless.
 *
 * <p>When its worker fails, the session goes on by itself at another one, within the call's
 * time-out, with what is stored of it and with what is kept here of the rest; unless {@link
 * SessionOptions#replayBytesMax} is 0.
 */
public final class KvSession implements AutoCloseable {
  /** Most tokens a KV head that can be gathered. */
  public static final int GATHER_TOKENS_MAX = 4096;

  private final KvtierClient client;
  private final SessionLink link;
  private boolean closed;

  KvSession(KvtierClient client, Session session, @Nullable ReplayTail tail) {
    this.client = client;
    this.link = new SessionLink(client, session, tail);
  }

  /** The session as it was opened, or last resumed. */
  public Session info() {
    return link.session();
  }

  /** Of a resumed session: tokens that a layer had then. What follows must be sent again. */
  public int layerTokens(int layer) {
    return link.resumedTokens(layer);
  }

  /**
   * Whom to ask for rows whose pages no tier has any more: with it, decoding goes on by itself when
   * a tier is lost that had the only copy. Without it a step that needs them is refused (LOST).
   */
  public void recomputeWith(Recompute recompute) {
    link.recomputeWith(recompute);
  }

  /**
   * First tokens that the session has from the start, since another one stored their pages: the
   * prefill begins behind them.
   */
  public int reusedTokens() {
    return info().getReusedTokens();
  }

  /**
   * Starts to stream a prompt's keys and values in, or goes on after a broken stream or after
   * decoding.
   */
  public PrefillStream prefill() {
    return new PrefillStream(link);
  }

  /** Starts to decode; the session's prefill must be finished. */
  public DecodeStream decode() {
    return new DecodeStream(link);
  }

  /** A second session that starts with all tokens of this one and shares its pages. */
  public KvSession fork() {
    Session child = client.fork(info());
    // What of the first tokens is not stored yet, only a worker and we have.
    ReplayTail tail = link.tail();
    return new KvSession(client, child, tail == null ? null : tail.copy());
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
    return link.recovering(() -> {
      Session session = info();
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
        return AttentionGrpc.newBlockingStub(link.channel())
            .withDeadlineAfter(client.timeout().toNanos(), TimeUnit.NANOSECONDS)
            .gather(request)
            .getHeadsList();
      } catch (StatusRuntimeException e) {
        throw Statuses.fromStatus(e, link.peer());
      }
    });
  }

  /** A token range's keys and values, in order of position, at most a page's 64 tokens an entry. */
  public List<LoadResponse> load(int layer, int position, int tokens) {
    return link.recovering(() -> {
      LoadRequest request =
          LoadRequest.newBuilder()
              .setSessionId(info().getSessionId())
              .setEpoch(info().getEpoch())
              .setLayer(layer)
              .setPosition(position)
              .setTokens(tokens)
              .build();
      List<LoadResponse> parts = new ArrayList<>();
      try (Duplex<?, LoadResponse> stream =
          new Duplex<>(
              AttentionGrpc.newBlockingV2Stub(link.channel()).load(request),
              link.peer(),
              client.timeout())) {
        for (LoadResponse part = stream.readOrEnd(); part != null; part = stream.readOrEnd()) {
          parts.add(part);
        }
      }
      return parts;
    });
  }

  @Override
  public void close() {
    if (!closed) {
      closed = true;
      client.closeSession(info());
    }
  }
}
