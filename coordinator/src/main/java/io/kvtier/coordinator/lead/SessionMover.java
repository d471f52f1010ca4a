package io.kvtier.coordinator.lead;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.coordinator.metrics.CoordinatorMeters;
import io.kvtier.coordinator.session.SessionTable;
import io.kvtier.v1.AttachRequest;
import io.kvtier.v1.AttachResponse;
import io.kvtier.v1.Command;
import io.kvtier.v1.MoveSession;
import io.kvtier.v1.Node;
import io.kvtier.v1.NodeState;
import io.kvtier.v1.ResumeRequest;
import io.kvtier.v1.Session;
import io.kvtier.v1.SessionRecord;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.locks.ReentrantLock;
import java.util.logging.Level;
import java.util.logging.Logger;
import java.util.stream.Stream;

/**
 * Resumes sessions: has the worker, or another one, take the session in a higher epoch, then has
 * the coordinators agree on that. Until they do, the session is where and what it was. Thread-safe;
 * blocks on workers, one resumption of a session at a time.
 */
public final class SessionMover {
  private static final Logger LOG = Logger.getLogger(SessionMover.class.getName());

  /**
   * Epochs that are tried at one worker: it may have taken the session in one before, of which no
   * coordinator could tell the others.
   */
  private static final int EPOCHS_TRIED_MAX = 8;

  /** Sessions that may be resumed at once. */
  private static final int LOCKS = 256;

  private final Lead lead;
  private final Workers workers;
  private final Prompts prompts;
  private final CoordinatorMeters meters;

  /** Sessions whose last tried epochs are remembered. */
  private static final int TRIED_MAX = 4096;

  /**
   * The highest epoch that any worker was asked to take each session in, the oldest dropped: one
   * whose answer was lost may have it, so no other worker is asked for the same. Guarded by itself.
   */
  private final Map<String, Long> triedEpochs =
      new LinkedHashMap<>() {
        @Override
        protected boolean removeEldestEntry(Map.Entry<String, Long> eldest) {
          return size() > TRIED_MAX;
        }
      };

  /** By the hash of the session's id. */
  private final List<ReentrantLock> locks =
      Stream.generate(ReentrantLock::new).limit(LOCKS).toList();

  public SessionMover(Lead lead, Workers workers, Prompts prompts, CoordinatorMeters meters) {
    this.lead = lead;
    this.workers = workers;
    this.prompts = prompts;
    this.meters = meters;
  }

  /** Has a session served again, in a higher epoch, unless the same request has. */
  public SessionRecord resume(ResumeRequest request, Caller caller) {
    SessionLimits.checkOwner(request.getOwner());
    SessionLimits.checkRequestId(request.getRequestId());
    ReentrantLock lock = locks.get(Math.floorMod(request.getSessionId().hashCode(), LOCKS));
    lock.lock();
    try {
      return resumeAlone(request, caller.requestId(request.getRequestId()));
    } finally {
      lock.unlock();
    }
  }

  private SessionRecord resumeAlone(ResumeRequest request, String requestId) {
    SessionRecord record = lead.call(view -> view.state().sessions().get(request.getSessionId()));
    SessionLimits.requireOwner(record.getSession(), request.getOwner());
    if (SessionTable.isMoved(record, request.getEpoch(), requestId)) {
      return record;
    }
    var _ =
        lead.call(view -> view.state().sessions().get(request.getSessionId(), request.getEpoch()));
    Set<String> tried = new HashSet<>();
    Optional<SessionRecord> moved = Optional.empty();
    KvtierException last = null;
    String home = record.getSession().getWorkerTarget();
    Optional<String> target =
        mayStay(home, request.getWorkerFailed()) ? Optional.of(home) : next(record, tried, home);
    long startNs = lead.nowNs();
    while (target.isPresent()
        && moved.isEmpty()
        && tried.size() < SessionOpener.WORKERS_TRIED_MAX
        && lead.nowNs() - startNs < SessionOpener.TRYING_NS_MAX) {
      tried.add(target.get());
      try {
        moved = Optional.of(moveTo(record, target.get(), requestId));
      } catch (KvtierException e) {
        if (e.code() != Code.UNAVAILABLE && e.code() != Code.EXHAUSTED) {
          throw e;
        }
        last = e;
        // If another one leads by now, no worker can help.
        lead.require();
        target = next(record, tried, home);
      }
    }
    if (moved.isEmpty()) {
      throw last != null ? last : SessionOpener.noWorker();
    }
    SessionRecord placed = moved.get();
    meters.resumed(!placed.getSession().getWorkerTarget().equals(home));
    LOG.log(
        Level.INFO,
        "session {0} resumed at {1} (was at {2}) in epoch {3}",
        new Object[] {
          request.getSessionId(),
          placed.getSession().getWorkerTarget(),
          home,
          Long.toUnsignedString(placed.getSession().getEpoch())
        });
    return placed;
  }

  /** Whether a session's worker is a member that takes it again. */
  private boolean mayStay(String home, boolean workerFailed) {
    Optional<Node> node = lead.call(view -> view.state().nodes().workerAt(home));
    return node.isPresent()
        && node.get().getState() != NodeState.NODE_STATE_DRAINING
        && (!workerFailed || workers.answers(home));
  }

  /** The worker to try next: not the one that the session was on. */
  private Optional<String> next(SessionRecord record, Set<String> tried, String home) {
    Set<String> excluded = new HashSet<>(tried);
    excluded.add(home);
    return lead.call(view -> SessionOpener.chooseWorker(view, record.getPrefixHashes(), excluded))
        .map(Node::getTarget);
  }

  private SessionRecord moveTo(SessionRecord record, String target, String requestId) {
    Session before = record.getSession();
    Session.Builder there = before.toBuilder().setWorkerTarget(target).clearReusedTokens();
    AttachResponse accepted = attach(record, there);
    boolean agreed = false;
    try {
      SessionRecord moved =
          lead.submit(
                  Command.newBuilder()
                      .setMove(
                          MoveSession.newBuilder()
                              .setSessionId(before.getSessionId())
                              .setEpoch(before.getEpoch())
                              .setNewEpoch(there.getEpoch())
                              .setWorkerTarget(target)
                              .setRequestId(requestId)
                              .addAllLayerTokens(accepted.getLayerTokensList())))
              .getSession();
      agreed = true;
      if (!before.getWorkerTarget().equals(target)) {
        // It may live, or come back, with a session that is another's now.
        workers.detachLater(before, true);
      }
      return moved;
    } finally {
      if (!agreed && !before.getWorkerTarget().equals(target)) {
        workers.detachLater(there.build(), true);
      }
    }
  }

  /** An epoch of a session that no worker was asked for. */
  private long freshEpoch(SessionRecord record) {
    synchronized (triedEpochs) {
      return triedEpochs.merge(
          record.getSession().getSessionId(),
          record.getSession().getEpoch() + 1,
          (tried, next) -> Math.max(tried + 1, next));
    }
  }

  /** Has a worker take the session, in an epoch above all that it or another one knows of. */
  private AttachResponse attach(SessionRecord record, Session.Builder there) {
    for (int tried = 1; tried <= EPOCHS_TRIED_MAX; tried++) {
      there.setEpoch(freshEpoch(record));
      try {
        return workers.attach(
            AttachRequest.newBuilder()
                .setSession(there)
                .setPrefix(prompts.prefixOf(record))
                .setResume(true)
                .build());
      } catch (KvtierException e) {
        if (e.code() != Code.PRECONDITION) {
          throw e;
        }
      }
    }
    throw new KvtierException(
        Code.UNAVAILABLE,
        "worker %s knows session %s in a higher epoch; try again"
            .formatted(there.getWorkerTarget(), there.getSessionId()));
  }
}
