package io.kvtier.gpuworker.session;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.client.PageTransport;
import io.kvtier.gpuworker.core.MeasuredRates;
import io.kvtier.gpuworker.device.AttentionDevice;
import io.kvtier.gpuworker.trace.StepListener;
import io.kvtier.page.PageKey;
import io.kvtier.v1.Session;
import io.kvtier.v1.SessionRef;
import java.util.Comparator;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import org.jspecify.annotations.Nullable;

/**
 * The sessions attached to this worker, bounded in number. Closes them all, then its threads; their
 * pages stay, so that they can be resumed elsewhere. Safe for any number of threads.
 */
public final class SessionTable implements AutoCloseable {

  private final AttentionDevice device;
  private final DevicePool pool;
  private final SessionTiers tiers;
  private final int sessionsMax;
  private final SessionLimits limits;
  private final PendingBytes pending;
  private final StepListener listener;
  private final MeasuredRates rates = new MeasuredRates();
  private final ExecutorService background = Executors.newVirtualThreadPerTaskExecutor();
  private final Map<String, WorkerSession> sessions = new LinkedHashMap<>();

  /** Sessions being attached; false: detached already. */
  private final Map<String, Boolean> attaching = new HashMap<>();

  private final Unsettled unsettled = new Unsettled(background);
  private boolean closed;

  /**
   * An empty table.
   *
   * @param tiers keep sessions' pages
   * @param pending of all sessions together
   * @param listener hears of each step
   */
  public SessionTable(
      AttentionDevice device,
      SessionTiers tiers,
      int sessionsMax,
      SessionLimits limits,
      PendingBytes pending,
      StepListener listener) {
    this.device = device;
    this.pool = new DevicePool(device.memory());
    this.tiers = tiers;
    this.sessionsMax = sessionsMax;
    this.limits = limits;
    this.pending = pending;
    this.listener = listener;
  }

  /**
   * Takes a session in: with what is stored of its prefix, or as a copy of {@code forkOf} unless
   * that is empty.
   *
   * @return first tokens that it has from its prefix, or whose pages are those of {@code forkOf}
   */
  public int attach(Session info, String forkOf, Prefix prefix) {
    String id = info.getSessionId();
    WorkerSession parent;
    synchronized (this) {
      requireRoom(id);
      parent = forkOf.isEmpty() ? null : require(forkOf);
      attaching.put(id, true);
    }
    // Outside the lock: a fork waits for the tier.
    WorkerSession session = null;
    boolean wanted = false;
    try {
      session =
          parent == null
              ? SessionOpening.open(info, prefix, host(tiers.tierFor(prefix.placement(id))))
              : parent.fork(info);
    } finally {
      wanted = publish(id, session);
    }
    if (!wanted) {
      session.close();
      throw detachedMeanwhile(id);
    }
    return parent == null ? session.tokens(0) : session.sharedTokens();
  }

  /**
   * Takes a session in that was attached before, with a lower epoch: here, and then all but its
   * epoch stays; or elsewhere, and then it is read back from its pages.
   *
   * @return tokens that each layer has
   * @throws KvtierException PRECONDITION if it is here with the same epoch or a newer one
   */
  public int[] resume(Session info, Prefix prefix) {
    String id = info.getSessionId();
    WorkerSession here;
    synchronized (this) {
      here = sessions.get(id);
      if (here == null) {
        requireRoom(id);
        attaching.put(id, true);
      }
    }
    if (here != null) {
      return here.raiseEpoch(info.getEpoch());
    }
    WorkerSession session = null;
    boolean wanted = false;
    try {
      List<PageKey> names = StoredPages.firstNames(info, prefix);
      PageTransport tier = tiers.tierHolding(prefix.placement(id), names);
      session = SessionOpening.resume(info, prefix, host(tier));
    } finally {
      wanted = publish(id, session);
    }
    if (!wanted) {
      session.leave();
      throw detachedMeanwhile(id);
    }
    return session.layerTokens();
  }

  private static KvtierException detachedMeanwhile(String id) {
    return new KvtierException(
        Code.UNAVAILABLE, "session %s was detached while it was being attached".formatted(id));
  }

  private SessionHost host(PageTransport tier) {
    return new SessionHost(device, pool, tier, background, limits, pending, listener, rates);
  }

  /** What sessions' fetches and queries are measured to take. */
  public MeasuredRates rates() {
    return rates;
  }

  /** Ends an attach; false if the session was detached, or the worker stopped, meanwhile. */
  private synchronized boolean publish(String id, @Nullable WorkerSession session) {
    boolean wanted = Boolean.TRUE.equals(attaching.remove(id)) && !closed;
    if (wanted && session != null) {
      sessions.put(id, session);
    }
    return wanted;
  }

  private void requireRoom(String id) {
    if (closed) {
      throw new KvtierException(Code.UNAVAILABLE, "the worker is stopping");
    }
    if (sessions.containsKey(id) || attaching.containsKey(id)) {
      throw new KvtierException(Code.EXISTS, "session %s is attached already".formatted(id));
    }
    if (sessions.size() + attaching.size() >= sessionsMax) {
      throw new KvtierException(
          Code.EXHAUSTED,
          "the worker has %d sessions, its most; close some or start another worker"
              .formatted(sessions.size() + attaching.size()));
    }
  }

  /** Frees a session, whatever its epoch, and deletes its pages; it need not be here. */
  public void detach(String id) {
    detach(id, 0, false);
  }

  /**
   * Frees a session; one that is not here is no error.
   *
   * @param epoch frees nothing if the session is here in a newer one; 0: whatever its epoch
   * @param keepPages leaves its pages to the worker that has it now, or will
   */
  public void detach(String id, long epoch, boolean keepPages) {
    WorkerSession session;
    synchronized (this) {
      session = sessions.get(id);
      if (session != null && epoch != 0 && session.epoch() > epoch) {
        return;
      }
      sessions.remove(id);
      attaching.computeIfPresent(id, (key, wanted) -> false);
    }
    if (session != null) {
      closeOrKeep(session, keepPages);
    }
  }

  /** A session whose pages the tier does not delete, or let go, now is tried again by itself. */
  private void closeOrKeep(WorkerSession session, boolean keepPages) {
    try {
      if (keepPages) {
        session.leave();
      } else {
        session.close();
      }
    } catch (KvtierException e) {
      unsettled.add(session, e);
    }
  }

  /** Sessions that have ended and whose pages the tier has not deleted yet. */
  int unsettled() {
    return unsettled.size();
  }

  /**
   * The session of a call. Its epoch may be over when the call is made: {@link
   * WorkerSession#inEpoch} tells.
   *
   * @throws KvtierException NOT_FOUND, or PRECONDITION if the epoch is not the session's
   */
  public synchronized WorkerSession require(String id, long epoch) {
    WorkerSession session = require(id);
    session.requireEpoch(epoch);
    return session;
  }

  private WorkerSession require(String id) {
    WorkerSession session = sessions.get(id);
    if (session == null) {
      throw Sessions.unknown(id);
    }
    return session;
  }

  /**
   * Sessions that have not been used for as long as they may, longest first.
   *
   * @param nowNs as {@link System#nanoTime}
   * @param max most of them
   */
  public synchronized List<SessionRef> idle(long nowNs, int max) {
    record Idle(WorkerSession session, long idleNs) {}
    return sessions.values().stream()
        .map(session -> new Idle(session, session.idleNs(nowNs)))
        .filter(idle -> {
          long timeoutMs = Integer.toUnsignedLong(idle.session.info().getIdleTimeoutMs());
          return timeoutMs > 0 && idle.idleNs >= TimeUnit.MILLISECONDS.toNanos(timeoutMs);
        })
        .sorted(Comparator.comparingLong(Idle::idleNs).reversed())
        .limit(max)
        .map(idle ->
            SessionRef.newBuilder()
                .setSessionId(idle.session.info().getSessionId())
                .setEpoch(idle.session.epoch())
                .build())
        .toList();
  }

  public synchronized int size() {
    return sessions.size();
  }

  /** Heads of all sessions so far that came to hold less than planned, for want of device bytes. */
  public long demotions() {
    return pool.demotions();
  }

  /** Bytes of all sessions' pages that wait to be stored. */
  public synchronized long pendingBytes() {
    return sessions.values().stream().mapToLong(WorkerSession::pendingBytes).sum();
  }

  @Override
  public void close() {
    List<WorkerSession> open;
    synchronized (this) {
      closed = true;
      open = List.copyOf(sessions.values());
      sessions.clear();
    }
    unsettled.close();
    RuntimeException failed = null;
    for (WorkerSession session : open) {
      try {
        session.leave();
      } catch (RuntimeException e) {
        // The tier may be gone already; the device's memory must be freed all the same.
        if (failed == null) {
          failed = e;
        } else {
          failed.addSuppressed(e);
        }
      }
    }
    background.close();
    if (failed != null) {
      throw failed;
    }
  }
}
