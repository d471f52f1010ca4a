package io.kvtier.coordinator.session;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import java.util.HashMap;
import java.util.Map;

/**
 * The sessions that are about to open: each has a place from before its worker is asked until the
 * coordinators have agreed on it, so that the bound holds and workers are chosen by what they will
 * have. Only the coordinator that leads has any. Not thread-safe.
 */
public final class Reservations {
  private final int sessionsMax;
  private final Map<String, String> targetById = new HashMap<>();
  private final Map<String, Integer> countByTarget = new HashMap<>();

  public Reservations(int sessionsMax) {
    this.sessionsMax = sessionsMax;
  }

  /**
   * Takes a place.
   *
   * @param open sessions that are open now
   * @throws KvtierException EXHAUSTED if there is none
   */
  public void reserve(String sessionId, String workerTarget, int open) {
    int taken = open + targetById.size();
    if (taken >= sessionsMax) {
      throw new KvtierException(
          Code.EXHAUSTED,
          "%d sessions are open or opening and sessions_max is %d; close one, or raise it"
              .formatted(taken, sessionsMax));
    }
    if (targetById.putIfAbsent(sessionId, workerTarget) != null) {
      throw new IllegalStateException("session " + sessionId + " is reserved already");
    }
    countByTarget.merge(workerTarget, 1, Integer::sum);
  }

  /** Gives a place back; nothing if there is none. */
  public void release(String sessionId) {
    String target = targetById.remove(sessionId);
    if (target != null) {
      countByTarget.computeIfPresent(target, (_, count) -> count == 1 ? null : count - 1);
    }
  }

  /** Whether a session is about to open. */
  public boolean contains(String sessionId) {
    return targetById.containsKey(sessionId);
  }

  /** Counts the sessions that a worker is about to get. */
  public int countOn(String workerTarget) {
    return countByTarget.getOrDefault(workerTarget, 0);
  }
}
