package io.kvtier.coordinator.lead;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.coordinator.metrics.CoordinatorMeters;
import io.kvtier.v1.Command;
import io.kvtier.v1.EndSession;
import io.kvtier.v1.FreedSession;
import io.kvtier.v1.Role;
import io.kvtier.v1.Session;
import io.kvtier.v1.SessionRecord;
import io.kvtier.v1.SessionRef;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.TimeUnit;

/**
 * Ends sessions that nobody uses: those that their worker has not heard of for long, as it tells,
 * and those that no worker serves and nobody resumes. Thread-safe.
 */
public final class IdleSessions {
  private final Lead lead;
  private final CoordinatorMeters meters;

  /** Since when sessions have had no worker, as this coordinator has seen it; by id. */
  private final Map<String, Long> unservedSinceNs = new HashMap<>();

  public IdleSessions(Lead lead, CoordinatorMeters meters) {
    this.lead = lead;
    this.meters = meters;
  }

  /**
   * Hears of an idle session.
   *
   * @param target the worker that tells
   * @return that it must free the session, unless it must keep it
   */
  Optional<FreedSession> told(SessionRef told, String target) {
    Optional<SessionRecord> known =
        // Freeing what is not known here must not be the mistake of a leader that was cut off.
        lead.callConfirmed(view -> view.state().sessions().find(told.getSessionId()));
    if (known.isEmpty()) {
      boolean opening = lead.call(view -> view.reservations().contains(told.getSessionId()));
      return opening ? Optional.empty() : Optional.of(freed(told, false));
    }
    Session session = known.get().getSession();
    if (!session.getWorkerTarget().equals(target)) {
      return Optional.of(freed(told, true));
    }
    // In another epoch it has just been resumed there, or is about to be.
    if (session.getEpoch() != told.getEpoch()) {
      return Optional.empty();
    }
    boolean keepPages = lead.call(view -> view.state().sessions().pagesNeeded(known.get()));
    return expire(session) ? Optional.of(freed(told, keepPages)) : Optional.empty();
  }

  private static FreedSession freed(SessionRef told, boolean keepPages) {
    return FreedSession.newBuilder()
        .setSessionId(told.getSessionId())
        .setKeepPages(keepPages)
        .build();
  }

  private boolean expire(Session session) {
    try {
      var _ =
          lead.submit(
              Command.newBuilder()
                  .setEnd(
                      EndSession.newBuilder()
                          .setSessionId(session.getSessionId())
                          .setEpoch(session.getEpoch())
                          .setExpired(true)));
      meters.expired();
      return true;
    } catch (KvtierException e) {
      if (e.code() == Code.NOT_FOUND || e.code() == Code.PRECONDITION) {
        // It was closed or resumed meanwhile.
        return false;
      }
      throw e;
    }
  }

  /** Ends the sessions that have had no worker for as long as their time-out. */
  public void expireUnserved() {
    overdue().forEach(this::expire);
  }

  private synchronized List<Session> overdue() {
    List<Session> overdue = new ArrayList<>();
    Set<String> unserved = new HashSet<>();
    lead.call(view -> {
      Set<String> served = new HashSet<>();
      view.state().nodes().nodes(Role.ROLE_WORKER).forEach(node -> served.add(node.getTarget()));
      for (SessionRecord record : view.state().sessions().list()) {
        Session session = record.getSession();
        if (!served.contains(session.getWorkerTarget())) {
          String id = session.getSessionId();
          unserved.add(id);
          long sinceNs = unservedSinceNs.computeIfAbsent(id, _ -> view.nowNs());
          long idleNs = TimeUnit.MILLISECONDS.toNanos(session.getIdleTimeoutMs());
          if (view.nowNs() - sinceNs >= idleNs) {
            overdue.add(session);
          }
        }
      }
      return overdue;
    });
    unservedSinceNs.keySet().retainAll(unserved);
    return overdue;
  }
}
