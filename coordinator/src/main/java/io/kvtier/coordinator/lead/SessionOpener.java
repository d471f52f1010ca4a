package io.kvtier.coordinator.lead;

import com.google.protobuf.ByteString;
import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.coordinator.metrics.CoordinatorMeters;
import io.kvtier.coordinator.session.SessionTable;
import io.kvtier.v1.Ancestor;
import io.kvtier.v1.AttachRequest;
import io.kvtier.v1.AttachResponse;
import io.kvtier.v1.Command;
import io.kvtier.v1.ForkRequest;
import io.kvtier.v1.Node;
import io.kvtier.v1.OpenRequest;
import io.kvtier.v1.PlanMode;
import io.kvtier.v1.Session;
import io.kvtier.v1.SessionRecord;
import io.kvtier.v1.SharedPrefix;
import java.time.Duration;
import java.util.HashSet;
import java.util.Optional;
import java.util.Set;
import java.util.UUID;
import java.util.function.Supplier;

/**
 * Opens and forks sessions: reserves a place, has a worker accept the session, then has the
 * coordinators agree on it. What fails in between leaves nothing but a worker that is told to free
 * it. Thread-safe; blocks on workers.
 */
public final class SessionOpener {
  /** Workers that are tried when they do not answer, or are full; they say so at once. */
  static final int WORKERS_TRIED_MAX = 32;

  /** No further one is tried after so long. */
  static final long TRYING_NS_MAX = Duration.ofSeconds(20).toNanos();

  private final Lead lead;
  private final Workers workers;
  private final Prompts prompts;
  private final Supplier<UUID> ids;
  private final CoordinatorMeters meters;
  private final InFlight<SessionRecord> calls = new InFlight<>();

  public SessionOpener(
      Lead lead, Workers workers, Prompts prompts, Supplier<UUID> ids, CoordinatorMeters meters) {
    this.lead = lead;
    this.workers = workers;
    this.prompts = prompts;
    this.ids = ids;
    this.meters = meters;
  }

  /** Opens a session, unless the same request has. */
  public SessionRecord open(OpenRequest request, Caller caller) {
    SessionLimits.check(request);
    String requestId = caller.requestId(request.getRequestId());
    return calls.once(
        requestId, () -> opened(requestId).orElseGet(() -> openAnew(request, requestId, caller)));
  }

  /** What a request has opened already, perhaps by way of another coordinator. */
  private Optional<SessionRecord> opened(String requestId) {
    return lead.call(view -> view.state().sessions().ofRequest(requestId));
  }

  private SessionRecord openAnew(OpenRequest request, String requestId, Caller caller) {
    SharedPrefix prefix = prompts.prefixOf(request, caller);
    Set<String> tried = new HashSet<>();
    KvtierException last = null;
    long startNs = lead.nowNs();
    while (tried.size() < WORKERS_TRIED_MAX
        && lead.nowNs() - startNs < TRYING_NS_MAX
        && !caller.gone().getAsBoolean()) {
      Optional<Session> session = reserve(request, prefix.getHashes(), tried, caller);
      if (session.isEmpty()) {
        break;
      }
      tried.add(session.get().getWorkerTarget());
      SessionRecord.Builder record =
          SessionRecord.newBuilder()
              .setSession(session.get())
              .setPlanGiven(request.hasPlan())
              .setPrefixHashes(prefix.getHashes())
              .setPromptTokens(prefix.getPromptTokens())
              .setOpenRequest(requestId);
      try {
        SessionRecord open = attach(record, "", prefix, caller);
        meters.opened();
        return open;
      } catch (KvtierException e) {
        // Another one may live, or have room.
        if (e.code() != Code.UNAVAILABLE && e.code() != Code.EXHAUSTED) {
          throw e;
        }
        last = e;
      }
    }
    throw last != null ? last : noWorker();
  }

  static KvtierException noWorker() {
    return new KvtierException(
        Code.UNAVAILABLE,
        "no worker is registered; start one with this coordinator as its target, and try again"
            + " once it has joined");
  }

  /** Reserves the session on a worker not tried yet; empty if there is none. */
  private Optional<Session> reserve(
      OpenRequest request, ByteString prefixHashes, Set<String> tried, Caller caller) {
    Session.Builder session =
        Session.newBuilder()
            .setSessionId(ids.get().toString())
            .setEpoch(SessionTable.FIRST_EPOCH)
            .setGeometry(request.getGeometry())
            .setTokensMax(request.getTokensMax())
            .setDeviceBytesMax(request.getDeviceBytesMax())
            .setOwner(request.getOwner())
            .setTenant(caller.tenant())
            .setIdleTimeoutMs(SessionLimits.idleTimeoutMs(request))
            .setMode(
                request.getMode() == PlanMode.PLAN_MODE_TAILORKV
                    ? PlanMode.PLAN_MODE_TAILORKV
                    : PlanMode.PLAN_MODE_KVTIER);
    if (request.hasPlan()) {
      session.setPlan(request.getPlan());
    }
    return lead.call(view -> {
      Optional<Node> worker = chooseWorker(view, prefixHashes, tried);
      worker.ifPresent(node -> session.setWorkerTarget(node.getTarget()));
      return worker.map(_ -> reserve(view, session.build()));
    });
  }

  /** The worker that a session is to go to; empty if all have been tried. */
  static Optional<Node> chooseWorker(Lead.View view, ByteString prefixHashes, Set<String> tried) {
    return view.leases()
        .chooseWorker(
            view.state().nodes().nodes(),
            view::countOn,
            node -> !tried.contains(node.getTarget()),
            node -> view.state().sessions().sharesPrefix(prefixHashes, node.getTarget()));
  }

  private static Session reserve(Lead.View view, Session session) {
    view.reservations()
        .reserve(
            session.getSessionId(), session.getWorkerTarget(), view.state().sessions().count());
    return session;
  }

  /** Forks a session, unless the same request has. */
  public SessionRecord fork(ForkRequest request, Caller caller) {
    SessionLimits.checkOwner(request.getOwner());
    SessionLimits.checkRequestId(request.getRequestId());
    String requestId = caller.requestId(request.getRequestId());
    return calls.once(
        requestId, () -> opened(requestId).orElseGet(() -> forkAnew(request, requestId, caller)));
  }

  private SessionRecord forkAnew(ForkRequest request, String requestId, Caller caller) {
    String childId = ids.get().toString();
    SessionRecord child =
        lead.call(view -> {
          SessionRecord parent =
              view.state().sessions().get(request.getSessionId(), request.getEpoch());
          SessionLimits.requireOwner(parent.getSession(), request.getOwner());
          // Its prompt is its parent's.
          SessionRecord.Builder copy = parent.toBuilder().setOpenRequest(requestId);
          copy.clearMoveRequest().clearMovedEpoch().clearLayerTokens();
          copy.getSessionBuilder()
              .setSessionId(childId)
              .setEpoch(SessionTable.FIRST_EPOCH)
              .clearReusedTokens();
          var _ = reserve(view, copy.getSession());
          return copy.build();
        });
    SessionRecord open =
        attach(
            child.toBuilder(), request.getSessionId(), SharedPrefix.getDefaultInstance(), caller);
    meters.forked();
    return open;
  }

  /** Has the coordinators agree on a reserved session if its worker accepts it. */
  private SessionRecord attach(
      SessionRecord.Builder record, String forkOf, SharedPrefix prefix, Caller caller) {
    Session reserved = record.getSession();
    boolean kept = false;
    try {
      AttachResponse accepted =
          workers.attach(
              AttachRequest.newBuilder()
                  .setSession(reserved)
                  .setForkOf(forkOf)
                  .setPrefix(prefix)
                  .build());
      caller.requireThere();
      if (forkOf.isEmpty()) {
        record.getSessionBuilder().setReusedTokens(accepted.getReusedTokens());
      } else if (accepted.getSharedTokens() > 0) {
        record
            .getSessionBuilder()
            .addAncestors(
                Ancestor.newBuilder().setSessionId(forkOf).setTokens(accepted.getSharedTokens()));
      }
      SessionRecord agreed = lead.submit(Command.newBuilder().setOpen(record)).getSession();
      // Another coordinator may have served the same request before.
      kept = agreed.getSession().getSessionId().equals(reserved.getSessionId());
      return agreed;
    } finally {
      release(reserved, kept);
    }
  }

  /** Gives the place back; a worker that failed to answer may have accepted the session. */
  private void release(Session reserved, boolean kept) {
    lead.call(view -> {
      view.reservations().release(reserved.getSessionId());
      return kept;
    });
    if (!kept) {
      workers.detachLater(reserved, false);
    }
  }
}
