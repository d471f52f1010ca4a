package io.kvtier.coordinator.grpc;

import static io.kvtier.KvtierException.requireInRange;

import com.google.common.primitives.Ints;
import io.grpc.Context;
import io.grpc.stub.StreamObserver;
import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.coordinator.membership.MembershipTable;
import io.kvtier.coordinator.metrics.CoordinatorMeters;
import io.kvtier.coordinator.prefix.StoredPrefix;
import io.kvtier.coordinator.session.SessionTable;
import io.kvtier.page.Fingerprint;
import io.kvtier.page.PageLayout;
import io.kvtier.page.PrefixChain;
import io.kvtier.rpc.Endpoint;
import io.kvtier.rpc.GeometryLimits;
import io.kvtier.rpc.PlanLimits;
import io.kvtier.rpc.Tenant;
import io.kvtier.v1.CloseRequest;
import io.kvtier.v1.CloseResponse;
import io.kvtier.v1.ForkRequest;
import io.kvtier.v1.Geometry;
import io.kvtier.v1.GetSessionRequest;
import io.kvtier.v1.ListSessionsRequest;
import io.kvtier.v1.ListSessionsResponse;
import io.kvtier.v1.LookupPrefixRequest;
import io.kvtier.v1.LookupPrefixResponse;
import io.kvtier.v1.Node;
import io.kvtier.v1.OpenRequest;
import io.kvtier.v1.PlanMode;
import io.kvtier.v1.Session;
import io.kvtier.v1.SessionsGrpc.SessionsImplBase;
import io.kvtier.v1.SharedPrefix;
import java.util.HashSet;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.UUID;
import java.util.function.Supplier;

/**
 * The Sessions service (sessions.proto). A session becomes visible only once its worker has
 * accepted it, and is gone from here before its worker is told to free it. Handlers block on
 * workers, so they need a thread each.
 */
public final class SessionsGrpcService extends SessionsImplBase {
  /** The epoch of a session that has never moved. */
  static final long FIRST_EPOCH = 1;

  /** Workers that an Open tries when they do not answer; bounds its time by as many deadlines. */
  private static final int WORKERS_TRIED_MAX = 3;

  private final GuardedTables tables;
  private final WorkerClients workers;
  private final Supplier<UUID> ids;
  private final TierWatch tiers;
  private final CoordinatorMeters meters;
  private final Replies replies;

  public SessionsGrpcService(
      GuardedTables tables,
      WorkerClients workers,
      TierWatch tiers,
      Supplier<UUID> ids,
      CoordinatorMeters meters) {
    this.tables = tables;
    this.workers = workers;
    this.tiers = tiers;
    this.ids = ids;
    this.meters = meters;
    this.replies = new Replies(meters);
  }

  @Override
  public void open(OpenRequest request, StreamObserver<Session> observer) {
    replies.answer(observer, () -> open(request));
  }

  @Override
  public void fork(ForkRequest request, StreamObserver<Session> observer) {
    replies.answer(observer, () -> fork(request));
  }

  @Override
  public void close(CloseRequest request, StreamObserver<CloseResponse> observer) {
    replies.answer(observer, () -> close(request));
  }

  @Override
  public void get(GetSessionRequest request, StreamObserver<Session> observer) {
    replies.answer(
        observer, () -> tables.call((sessions, _, _) -> sessions.get(request.getSessionId())));
  }

  @Override
  public void list(ListSessionsRequest request, StreamObserver<ListSessionsResponse> observer) {
    replies.answer(observer, this::list);
  }

  @Override
  public void lookupPrefix(
      LookupPrefixRequest request, StreamObserver<LookupPrefixResponse> observer) {
    replies.answer(observer, () -> lookupPrefix(request));
  }

  private LookupPrefixResponse lookupPrefix(LookupPrefixRequest request) {
    requireGeometry(request.hasGeometry(), request.getGeometry());
    requireInRange("length of token_ids", request.getTokenIdsCount(), 1, GeometryLimits.TOKENS_MAX);
    PrefixChain chain = chain(request.getGeometry(), request.getTokenIdsList());
    int pages = tiers.find(chain, request.getGeometry().getLayers()).pages();
    return LookupPrefixResponse.newBuilder().setTokens(pages * PageLayout.TOKENS).build();
  }

  private static PrefixChain chain(Geometry geometry, List<Integer> tokenIds) {
    return PrefixChain.of(
        Tenant.current(), Fingerprint.of(geometry.getModelFingerprint()), Ints.toArray(tokenIds));
  }

  /** What a worker needs to find a prompt's pages, and to name those that are yet to be stored. */
  private SharedPrefix prefix(OpenRequest request) {
    if (request.getTokenIdsCount() == 0 || request.getMode() == PlanMode.PLAN_MODE_TAILORKV) {
      return SharedPrefix.getDefaultInstance();
    }
    PrefixChain chain = chain(request.getGeometry(), request.getTokenIdsList());
    StoredPrefix stored = tiers.find(chain, request.getGeometry().getLayers());
    return SharedPrefix.newBuilder()
        .setHashes(chain.toByteString())
        .setPromptTokens(request.getTokenIdsCount())
        .addAllChecksums(Ints.asList(stored.checksums()))
        .addAllSinkChecksums(Ints.asList(stored.sinkChecksums()))
        .build();
  }

  private Session open(OpenRequest request) {
    check(request);
    SharedPrefix prefix = prefix(request);
    Set<String> tried = new HashSet<>();
    KvtierException last = null;
    while (tried.size() < WORKERS_TRIED_MAX && !Context.current().isCancelled()) {
      Optional<Session> session = reserve(request, tried);
      if (session.isEmpty()) {
        break;
      }
      tried.add(session.get().getWorkerTarget());
      try {
        Session open = attach(session.get(), "", prefix);
        meters.opened();
        return open;
      } catch (KvtierException e) {
        if (e.code() != Code.UNAVAILABLE) {
          throw e;
        }
        last = e;
      }
    }
    throw last != null
        ? last
        : new KvtierException(
            Code.UNAVAILABLE,
            "no worker is registered; start one with this coordinator as its target, and try again"
                + " once it has joined");
  }

  private static void check(OpenRequest request) {
    requireGeometry(request.hasGeometry(), request.getGeometry());
    requireInRange(
        "tokens_max", Integer.toUnsignedLong(request.getTokensMax()), 1, GeometryLimits.TOKENS_MAX);
    requireInRange("length of token_ids", request.getTokenIdsCount(), 0, request.getTokensMax());
    if (request.getDeviceBytesMax() < 0) {
      throw KvtierException.invalid(
          "device_bytes_max is %s; it must be 0..%d",
          Long.toUnsignedString(request.getDeviceBytesMax()), Long.MAX_VALUE);
    }
    if (request.getMode() == PlanMode.UNRECOGNIZED) {
      throw KvtierException.invalid(
          "mode is %d; it must be PLAN_MODE_KVTIER (1), PLAN_MODE_TAILORKV (2) or 0",
          request.getModeValue());
    }
    if (request.hasPlan()) {
      PlanLimits.check(request.getPlan(), request.getGeometry());
    }
  }

  private static void requireGeometry(boolean present, Geometry geometry) {
    if (!present) {
      throw KvtierException.invalid("geometry is absent; it is required");
    }
    GeometryLimits.check(geometry);
  }

  /** Reserves the session on the least loaded worker not tried yet; empty if there is none. */
  private Optional<Session> reserve(OpenRequest request, Set<String> tried) {
    Session.Builder session =
        Session.newBuilder()
            .setSessionId(ids.get().toString())
            .setEpoch(FIRST_EPOCH)
            .setGeometry(request.getGeometry())
            .setTokensMax(request.getTokensMax())
            .setDeviceBytesMax(request.getDeviceBytesMax())
            .setMode(
                request.getMode() == PlanMode.PLAN_MODE_TAILORKV
                    ? PlanMode.PLAN_MODE_TAILORKV
                    : PlanMode.PLAN_MODE_KVTIER);
    if (request.hasPlan()) {
      session.setPlan(request.getPlan());
    }
    return tables.call((sessions, members, _) -> reserve(sessions, members, session, tried));
  }

  private static Optional<Session> reserve(
      SessionTable sessions, MembershipTable members, Session.Builder session, Set<String> tried) {
    Optional<Node> worker =
        members.leastLoadedWorker(sessions::countOn, target -> !tried.contains(target));
    if (worker.isEmpty()) {
      return Optional.empty();
    }
    Session reserved = session.setWorkerTarget(worker.get().getTarget()).build();
    sessions.reserve(reserved);
    return Optional.of(reserved);
  }

  private Session fork(ForkRequest request) {
    String childId = ids.get().toString();
    Session child =
        tables.call((sessions, _, _) ->
            sessions.reserveFork(request.getSessionId(), request.getEpoch(), childId, FIRST_EPOCH));
    Session open = attach(child, request.getSessionId(), SharedPrefix.getDefaultInstance());
    meters.forked();
    return open;
  }

  /** Commits a reserved session if its worker accepts it; otherwise nothing is left of it. */
  private Session attach(Session session, String forkOf, SharedPrefix prefix) {
    String id = session.getSessionId();
    boolean attached = false;
    int reusedTokens;
    try {
      reusedTokens = workers.attach(session, forkOf, prefix);
      attached = true;
    } finally {
      if (!attached) {
        abandon(session);
      }
    }
    if (Context.current().isCancelled()) {
      abandon(session);
      throw new KvtierException(Code.UNAVAILABLE, "the caller left before the session was open");
    }
    return tables.call((sessions, _, _) -> sessions.commit(id, reusedTokens));
  }

  private void abandon(Session session) {
    String id = session.getSessionId();
    tables.call((sessions, _, _) -> {
      sessions.abandon(id);
      return id;
    });
    // A worker that failed to answer may have accepted it.
    workers.detachLater(session.getWorkerTarget(), id);
  }

  private CloseResponse close(CloseRequest request) {
    Session removed =
        tables.call(
            (sessions, _, _) -> sessions.remove(request.getSessionId(), request.getEpoch()));
    meters.closed();
    workers.detach(removed.getWorkerTarget(), removed.getSessionId());
    return CloseResponse.getDefaultInstance();
  }

  private ListSessionsResponse list() {
    ListSessionsResponse response =
        ListSessionsResponse.newBuilder()
            .addAllSessions(tables.call((sessions, _, _) -> sessions.list()))
            .build();
    if (response.getSerializedSize() > Endpoint.MESSAGE_BYTES_MAX) {
      throw new KvtierException(
          Code.EXHAUSTED,
          "the list of %d sessions takes %d bytes and a message holds %d; get the sessions one by"
                  .formatted(
                      response.getSessionsCount(),
                      response.getSerializedSize(),
                      Endpoint.MESSAGE_BYTES_MAX)
              + " one");
    }
    return response;
  }
}
