package io.kvtier.client;

import com.google.protobuf.ByteString;
import io.grpc.Channel;
import io.grpc.ClientInterceptors;
import io.grpc.ManagedChannel;
import io.grpc.StatusRuntimeException;
import io.kvtier.KvtierException;
import io.kvtier.TenantName;
import io.kvtier.rpc.Channels;
import io.kvtier.rpc.Statuses;
import io.kvtier.rpc.Tenant;
import io.kvtier.v1.CloseRequest;
import io.kvtier.v1.ClusterGrpc;
import io.kvtier.v1.ForkRequest;
import io.kvtier.v1.Geometry;
import io.kvtier.v1.GetSessionRequest;
import io.kvtier.v1.ListSessionsRequest;
import io.kvtier.v1.LookupPrefixRequest;
import io.kvtier.v1.ModelProfile;
import io.kvtier.v1.OpenRequest;
import io.kvtier.v1.ProfilesRequest;
import io.kvtier.v1.ResumeRequest;
import io.kvtier.v1.Session;
import io.kvtier.v1.SessionsGrpc;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.UUID;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;
import java.util.function.Function;

/**
 * The way in: opens sessions at a coordinator and reaches the workers that serve them. Safe for any
 * number of threads; each {@link KvSession} is for one thread at a time. Every call has a deadline,
 * and a refusal is a {@link KvtierException} whose message names the value and its bound. Closing
 * the client ends its connections, not the sessions on the service: close those first.
 *
 * <pre>{@code
 * try (KvtierClient client = KvtierClient.connect("127.0.0.1:7400");
 *     KvSession session = client.open(SessionOptions.of(geometry, 16_384))) {
 *   try (PrefillStream prefill = session.prefill()) {
 *     for (int layer = 0; layer < layers; layer++) {
 *       prefill.chunk(layer, 0, tokens, keys[layer], values[layer]);
 *       prefill.queries(layer, window, lastQueries[layer]);
 *     }
 *     prefill.finish(tokens);
 *   }
 *   try (DecodeStream decode = session.decode()) {
 *     decode.step(layer, position, 1, q, k, v, nextLayerQ, output);
 *   }
 * }
 * }</pre>
 */
public final class KvtierClient implements AutoCloseable {
  /** Time-out of a call, and of each wait on a stream, unless another is given. */
  public static final Duration DEFAULT_TIMEOUT = Duration.ofSeconds(30);

  private final ManagedChannel channel;
  private final Channel coordinator;
  private final String peer;
  private final Duration timeout;
  private final Map<String, ManagedChannel> workers = new ConcurrentHashMap<>();

  private KvtierClient(String target, Duration timeout, Optional<String> tenant) {
    this.channel = Channels.open(target);
    this.coordinator =
        tenant
            .<Channel>map(name -> ClientInterceptors.intercept(channel, Tenant.attach(name)))
            .orElse(channel);
    this.peer = "the coordinator at " + target;
    this.timeout = timeout;
  }

  /**
   * A client of the coordinator at {@code target}, host:port; nothing is sent until the first call.
   */
  public static KvtierClient connect(String target) {
    return connect(target, DEFAULT_TIMEOUT);
  }

  /** As {@link #connect(String)}, with another time-out. */
  public static KvtierClient connect(String target, Duration timeout) {
    return new KvtierClient(target, timeout, Optional.empty());
  }

  /**
   * As {@link #connect(String, Duration)}, for one tenant: its sessions share prefixes with each
   * other and with nobody else.
   *
   * @param tenant 1..64 characters of A-Z a-z 0-9 . _ -
   */
  public static KvtierClient connect(String target, Duration timeout, String tenant) {
    var _ = TenantName.require(tenant);
    return new KvtierClient(target, timeout, Optional.of(tenant));
  }

  /** Opens a session. */
  public KvSession open(SessionOptions options) {
    OpenRequest.Builder request =
        OpenRequest.newBuilder()
            .setGeometry(options.geometry())
            .setTokensMax(options.tokensMax())
            .setDeviceBytesMax(options.deviceBytesMax())
            .setMode(options.mode())
            .addAllTokenIds(options.tokenIds());
    options.plan().ifPresent(request::setPlan);
    Session session = call(stub -> stub.open(request.build()));
    return new KvSession(this, session, SessionLink.tailOf(session, options.replayBytesMax()));
  }

  /** Tells a session's state and plan. */
  public Session get(String sessionId) {
    GetSessionRequest request = GetSessionRequest.newBuilder().setSessionId(sessionId).build();
    return call(stub -> stub.get(request));
  }

  /** First tokens of a prompt whose pages are stored: a session opened with it reuses most. */
  public int lookupPrefix(Geometry geometry, List<Integer> tokenIds) {
    LookupPrefixRequest request =
        LookupPrefixRequest.newBuilder().setGeometry(geometry).addAllTokenIds(tokenIds).build();
    return call(stub -> stub.lookupPrefix(request)).getTokens();
  }

  /** The open sessions, oldest first. */
  public List<Session> list() {
    return call(stub -> stub.list(ListSessionsRequest.getDefaultInstance())).getSessionsList();
  }

  /**
   * What sessions have shown of a model's heads so far, and the curves that a context of so many
   * tokens would be planned by if its session sent no queries.
   *
   * @param modelFingerprint 16 bytes; empty: of all models
   * @param tokens context length, 1..1048576; 0: no curves
   */
  public List<ModelProfile> profiles(ByteString modelFingerprint, int tokens) {
    ProfilesRequest request =
        ProfilesRequest.newBuilder()
            .setModelFingerprint(modelFingerprint)
            .setTokens(tokens)
            .build();
    try {
      return ClusterGrpc.newBlockingStub(coordinator)
          .withDeadlineAfter(timeout.toNanos(), TimeUnit.NANOSECONDS)
          .profiles(request)
          .getProfilesList();
    } catch (StatusRuntimeException e) {
      throw Statuses.fromStatus(e, peer);
    }
  }

  /**
   * Takes a session over: its former user is refused from now on. It is resumed where it is, or
   * read back from its stored pages if its worker is gone; {@link KvSession#layerTokens} tells what
   * each layer has, and what follows must be sent again.
   *
   * @param session as {@link #get}, or an earlier user of it, tells
   */
  public KvSession resume(Session session) {
    Session resumed = resume(session, false, UUID.randomUUID().toString());
    return new KvSession(
        this, resumed, SessionLink.tailOf(resumed, SessionOptions.REPLAY_BYTES_MAX));
  }

  /** Resumes a session; the same request id once more is the same call. */
  Session resume(Session session, boolean workerFailed, String requestId) {
    ResumeRequest request =
        ResumeRequest.newBuilder()
            .setSessionId(session.getSessionId())
            .setEpoch(session.getEpoch())
            .setOwner(session.getOwner())
            .setWorkerFailed(workerFailed)
            .setRequestId(requestId)
            .build();
    return call(stub -> stub.resume(request));
  }

  Session fork(Session parent) {
    ForkRequest request =
        ForkRequest.newBuilder()
            .setSessionId(parent.getSessionId())
            .setEpoch(parent.getEpoch())
            .setOwner(parent.getOwner())
            .build();
    return call(stub -> stub.fork(request));
  }

  void closeSession(Session session) {
    CloseRequest request =
        CloseRequest.newBuilder()
            .setSessionId(session.getSessionId())
            .setEpoch(session.getEpoch())
            .setOwner(session.getOwner())
            .build();
    // The answer carries nothing: what counts is that no refusal came.
    var _ = call(stub -> stub.close(request));
  }

  ManagedChannel worker(String target) {
    return workers.computeIfAbsent(target, Channels::open);
  }

  Duration timeout() {
    return timeout;
  }

  private <R> R call(Function<SessionsGrpc.SessionsBlockingStub, R> method) {
    try {
      return method.apply(
          SessionsGrpc.newBlockingStub(coordinator)
              .withDeadlineAfter(timeout.toNanos(), TimeUnit.NANOSECONDS));
    } catch (StatusRuntimeException e) {
      throw Statuses.fromStatus(e, peer);
    }
  }

  @Override
  public void close() {
    workers.values().forEach(Channels::close);
    Channels.close(channel);
  }
}
