package io.kvtier.coordinator.session;

import static io.kvtier.KvtierException.requireInRange;

import com.google.errorprone.annotations.CanIgnoreReturnValue;
import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.v1.Plan;
import io.kvtier.v1.Session;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/**
 * The open sessions, and those about to open. A session is reserved before its worker is asked, so
 * that the bound holds while the answer is out, and is invisible until it is committed. Not
 * thread-safe: the owner serializes all calls. A refused call changes nothing.
 */
public final class SessionTable {
  /** Sessions a coordinator holds unless configured otherwise. */
  public static final int SESSIONS_DEFAULT = 1024;

  private static final int ID_LENGTH_MAX = 64;

  /**
   * @param planGiven whether the session was opened with a plan made by hand, which it keeps
   * @param profiled whether its curves have been taken into its model's profile
   */
  private record Entry(Session session, boolean planGiven, boolean profiled) {}

  private final int sessionsMax;

  /** Both maps keep the order of insertion; a commit appends, so {@code open} is oldest first. */
  private final Map<String, Entry> pending = new LinkedHashMap<>();

  private final Map<String, Entry> open = new LinkedHashMap<>();
  private final Map<String, Integer> countByTarget = new HashMap<>();

  public SessionTable(int sessionsMax) {
    this.sessionsMax = sessionsMax;
  }

  /**
   * Takes a place for a session that its worker has not accepted yet. A plan that it comes with is
   * one made by hand.
   *
   * @throws KvtierException EXHAUSTED if the table is full, EXISTS if the id is taken
   */
  public void reserve(Session session) {
    reserve(new Entry(session, session.hasPlan(), false));
  }

  /**
   * Takes a place for a copy of an open session, on the same worker and with the same plan.
   *
   * @param childId the copy's id, unique
   * @return the copy, not visible yet
   * @throws KvtierException NOT_FOUND, PRECONDITION (stale epoch), EXHAUSTED or EXISTS
   */
  public Session reserveFork(String parentId, long parentEpoch, String childId, long childEpoch) {
    Entry parent = require(parentId, parentEpoch);
    Session child =
        parent.session.toBuilder()
            .setSessionId(childId)
            .setEpoch(childEpoch)
            .clearReusedTokens()
            .build();
    // Its prompt is its parent's.
    reserve(new Entry(child, parent.planGiven, parent.profiled));
    return child;
  }

  private void reserve(Entry entry) {
    String id = entry.session.getSessionId();
    if (pending.containsKey(id) || open.containsKey(id)) {
      throw new KvtierException(Code.EXISTS, "session %s is open already".formatted(id));
    }
    if (pending.size() + open.size() >= sessionsMax) {
      throw new KvtierException(
          Code.EXHAUSTED,
          "%d sessions are open or opening and sessions_max is %d; close one, or raise it"
              .formatted(pending.size() + open.size(), sessionsMax));
    }
    pending.put(id, entry);
    countByTarget.merge(entry.session.getWorkerTarget(), 1, Integer::sum);
  }

  /**
   * Makes a reserved session visible.
   *
   * @param reusedTokens first tokens that its worker found stored
   * @return the session as it is now
   */
  @CanIgnoreReturnValue
  public Session commit(String id, int reusedTokens) {
    Entry entry = pending.remove(id);
    if (entry == null) {
      throw new IllegalStateException("session " + id + " is not reserved");
    }
    Session session = entry.session.toBuilder().setReusedTokens(reusedTokens).build();
    open.put(id, new Entry(session, entry.planGiven, entry.profiled));
    return session;
  }

  /** Gives a reserved place back. */
  public void abandon(String id) {
    Entry entry = pending.remove(id);
    if (entry != null) {
      uncount(entry);
    }
  }

  /**
   * Tells an open session.
   *
   * @throws KvtierException NOT_FOUND
   */
  public Session get(String id) {
    return require(id).session;
  }

  /**
   * Tells an open session to a caller that must know its epoch.
   *
   * @throws KvtierException NOT_FOUND or PRECONDITION (stale epoch)
   */
  public Session get(String id, long epoch) {
    return require(id, epoch).session;
  }

  /**
   * Tells the plan that a session was opened with; empty if its plans are made for it.
   *
   * @throws KvtierException NOT_FOUND or PRECONDITION (stale epoch)
   */
  public Optional<Plan> givenPlan(String id, long epoch) {
    Entry entry = require(id, epoch);
    return entry.planGiven ? Optional.of(entry.session.getPlan()) : Optional.empty();
  }

  /**
   * Stores the plan that was made for a session.
   *
   * @throws KvtierException NOT_FOUND or PRECONDITION (stale epoch)
   */
  public void setPlan(String id, long epoch, Plan plan) {
    Entry entry = require(id, epoch);
    if (entry.planGiven) {
      throw new IllegalStateException("session " + id + " keeps the plan it was opened with");
    }
    // Replacing a value keeps the key's place in the order.
    open.put(id, new Entry(entry.session.toBuilder().setPlan(plan).build(), false, entry.profiled));
  }

  /**
   * Notes that a session's curves are taken into its model's profile, which each session's are
   * once.
   *
   * @return whether they were not yet
   * @throws KvtierException NOT_FOUND or PRECONDITION (stale epoch)
   */
  public boolean markProfiled(String id, long epoch) {
    Entry entry = require(id, epoch);
    open.put(id, new Entry(entry.session, entry.planGiven, true));
    return !entry.profiled;
  }

  /**
   * Removes an open session.
   *
   * @return the session as it was
   * @throws KvtierException NOT_FOUND or PRECONDITION (stale epoch)
   */
  public Session remove(String id, long epoch) {
    Entry entry = require(id, epoch);
    open.remove(id);
    uncount(entry);
    return entry.session;
  }

  /** Copies the open sessions, oldest first. */
  public List<Session> list() {
    return open.values().stream().map(Entry::session).toList();
  }

  /** Counts the open sessions. */
  public int count() {
    return open.size();
  }

  /** Counts the sessions that a worker has or is about to get. */
  public int countOn(String workerTarget) {
    return countByTarget.getOrDefault(workerTarget, 0);
  }

  private Entry require(String id) {
    requireInRange("length of session_id", id.length(), 1, ID_LENGTH_MAX);
    Entry entry = open.get(id);
    if (entry == null) {
      throw new KvtierException(
          Code.NOT_FOUND, "session %s is not open; it was closed or never opened".formatted(id));
    }
    return entry;
  }

  private Entry require(String id, long epoch) {
    Entry entry = require(id);
    if (entry.session.getEpoch() != epoch) {
      throw KvtierException.precondition(
          "epoch is %s and session %s has epoch %s; get the session again and use its epoch",
          Long.toUnsignedString(epoch), id, Long.toUnsignedString(entry.session.getEpoch()));
    }
    return entry;
  }

  private void uncount(Entry entry) {
    countByTarget.computeIfPresent(
        entry.session.getWorkerTarget(), (_, count) -> count == 1 ? null : count - 1);
  }
}
