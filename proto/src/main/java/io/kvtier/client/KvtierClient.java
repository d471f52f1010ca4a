package io.kvtier.client;

import com.google.protobuf.ByteString;
import io.grpc.Channel;
import io.grpc.ClientInterceptors;
import io.grpc.ManagedChannel;
import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.TenantName;
import io.kvtier.rpc.Channels;
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
import io.kvtier.v1.PinRequest;
import io.kvtier.v1.PinResponse;
import io.kvtier.v1.ProfilesRequest;
import io.kvtier.v1.ResumeRequest;
import io.kvtier.v1.Session;
import io.kvtier.v1.SessionsGrpc;
import io.kvtier.v1.UnpinRequest;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.UUID;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicInteger;
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

  private final Coordinators coordinators;
  private final Optional<String> tenant;
  private final Duration timeout;
  private final Map<String, ManagedChannel> workers = new ConcurrentHashMap<>();

  private KvtierClient(String targets, Duration timeout, Optional<String> tenant) {
    this.coordinators = Coordinators.at(targets);
    this.tenant = tenant;
    this.timeout = timeout;
  }

  /**
   * A client of a coordinator; nothing is sent until the first call.
   *
   * @param target its gRPC target, host:port; or those of several, with commas between them: each
   *     call goes to the one that leads, and on to another one as long as it has time
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
            .addAllTokenIds(options.tokenIds())
            .setOwner(options.owner())
            .setIdleTimeoutMs((int) options.idleTimeout().toMillis())
            // So that it may be sent again where another coordinator leads since.
            .setRequestId(UUID.randomUUID().toString());
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
    return coordinators
        .call(ClusterGrpc::newBlockingStub, timeout, stub -> stub.profiles(request))
        .getProfilesList();
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
            .setRequestId(UUID.randomUUID().toString())
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
    AtomicInteger sent = new AtomicInteger();
    try {
      // The answer carries nothing: what counts is that no refusal came.
      var _ =
          call(stub -> {
            sent.incrementAndGet();
            return stub.close(request);
          });
    } catch (KvtierException e) {
      // Sent again since an answer was lost: it was closed by then.
      if (e.code() != Code.NOT_FOUND || sent.get() == 1) {
        throw e;
      }
    }
  }

  /**
   * Keeps the stored pages of a prompt from eviction, and those that are stored later, until {@link
   * #unpin} or the end of a time.
   *
   * @param tokenIds the prompt's, from its first token on; a page's 64 at least
   * @param ttl 1 s..30 days
   */
  public PinResponse pin(Geometry geometry, List<Integer> tokenIds, Duration ttl) {
    PinRequest request =
        PinRequest.newBuilder()
            .setGeometry(geometry)
            .addAllTokenIds(tokenIds)
            .setTtlMs(ttl.toMillis())
            .setRequestId(UUID.randomUUID().toString())
            .build();
    return call(stub -> stub.pin(request));
  }

  /** Ends a pin. */
  public void unpin(String pinId) {
    UnpinRequest request = UnpinRequest.newBuilder().setPinId(pinId).build();
    var _ = call(stub -> stub.unpin(request));
  }

  ManagedChannel worker(String target) {
    return workers.computeIfAbsent(target, Channels::open);
  }

  Duration timeout() {
    return timeout;
  }

  private <R> R call(Function<SessionsGrpc.SessionsBlockingStub, R> method) {
    return coordinators.call(
        channel -> SessionsGrpc.newBlockingStub(ofTenant(channel)), timeout, method);
  }

  private Channel ofTenant(Channel channel) {
    return tenant
        .<Channel>map(name -> ClientInterceptors.intercept(channel, Tenant.attach(name)))
        .orElse(channel);
  }

  @Override
  public void close() {
    workers.values().forEach(Channels::close);
    coordinators.close();
  }
}
