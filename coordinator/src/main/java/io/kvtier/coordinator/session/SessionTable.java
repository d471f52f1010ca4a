package io.kvtier.coordinator.session;

import static io.kvtier.KvtierException.requireInRange;

import com.google.protobuf.ByteString;
import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.v1.MoveSession;
import io.kvtier.v1.Plan;
import io.kvtier.v1.Session;
import io.kvtier.v1.SessionRecord;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/**
 * The open sessions, as all coordinators agree on them. Not thread-safe: the owner serializes all
 * calls. A refused call changes nothing.
 */
public final class SessionTable {
  /** Sessions a coordinator holds unless configured otherwise. */
  public static final int SESSIONS_DEFAULT = 1024;

  /** The epoch of a session that has never been resumed. */
  public static final long FIRST_EPOCH = 1;

  private static final int ID_LENGTH_MAX = 64;
  private static final int PREFIX_HASH_BYTES = 16;

  /** Oldest first; replacing a value keeps its place. */
  private final Map<String, SessionRecord> open = new LinkedHashMap<>();

  private final Map<String, String> byOpenRequest = new HashMap<>();
  private final Map<String, Integer> countByTarget = new HashMap<>();

  /** Sessions by the hash of their prompt's first page, then by their worker's target. */
  private final Map<ByteString, Map<String, Integer>> countByPrefix = new HashMap<>();

  /**
   * Takes a session in. One that the same request has opened already is not opened again.
   *
   * @return the session of this request; of another id if it was opened before
   * @throws KvtierException EXISTS if the id is taken
   */
  public SessionRecord open(SessionRecord record) {
    String id = record.getSession().getSessionId();
    Optional<SessionRecord> before = ofRequest(record.getOpenRequest());
    if (before.isPresent()) {
      return before.get();
    }
    if (open.containsKey(id)) {
      throw new KvtierException(Code.EXISTS, "session %s is open already".formatted(id));
    }
    put(record);
    return record;
  }

  private void put(SessionRecord record) {
    Session session = record.getSession();
    open.put(session.getSessionId(), record);
    if (!record.getOpenRequest().isEmpty()) {
      byOpenRequest.put(record.getOpenRequest(), session.getSessionId());
    }
    count(record, 1);
  }

  private void count(SessionRecord record, int change) {
    String target = record.getSession().getWorkerTarget();
    add(countByTarget, target, change);
    firstPage(record.getPrefixHashes())
        .ifPresent(hash ->
            countByPrefix.compute(
                hash,
                (_, counts) -> {
                  Map<String, Integer> changed = counts == null ? new HashMap<>() : counts;
                  add(changed, target, change);
                  return changed.isEmpty() ? null : changed;
                }));
  }

  private static void add(Map<String, Integer> counts, String target, int change) {
    counts.merge(target, change, (was, by) -> was + by == 0 ? null : was + by);
  }

  private static Optional<ByteString> firstPage(ByteString prefixHashes) {
    return prefixHashes.size() < PREFIX_HASH_BYTES
        ? Optional.empty()
        : Optional.of(prefixHashes.substring(0, PREFIX_HASH_BYTES));
  }

  /** Whether a worker has sessions whose prompts begin with the same page; none: false. */
  public boolean sharesPrefix(ByteString prefixHashes, String workerTarget) {
    return firstPage(prefixHashes)
        .map(hash -> countByPrefix.getOrDefault(hash, Map.of()).containsKey(workerTarget))
        .orElse(false);
  }

  /** The session that a request has opened. */
  public Optional<SessionRecord> ofRequest(String requestId) {
    return Optional.ofNullable(byOpenRequest.get(requestId)).map(open::get);
  }

  /**
   * Raises a session's epoch and says where it is. A move by the request that moved it last is done
   * already.
   *
   * @throws KvtierException NOT_FOUND or PRECONDITION (stale epoch)
   */
  public SessionRecord move(MoveSession move) {
    SessionRecord record = get(move.getSessionId());
    if (isMoved(record, move.getEpoch(), move.getRequestId())) {
      return record;
    }
    requireEpoch(record, move.getEpoch());
    if (Long.compareUnsigned(move.getNewEpoch(), move.getEpoch()) <= 0) {
      throw KvtierException.precondition(
          "the new epoch %s of session %s is not above %s",
          Long.toUnsignedString(move.getNewEpoch()),
          move.getSessionId(),
          Long.toUnsignedString(move.getEpoch()));
    }
    SessionRecord.Builder moved = record.toBuilder();
    moved.getSessionBuilder().setEpoch(move.getNewEpoch()).setWorkerTarget(move.getWorkerTarget());
    moved
        .setMoveRequest(move.getRequestId())
        .setMovedEpoch(move.getEpoch())
        .clearLayerTokens()
        .addAllLayerTokens(move.getLayerTokensList());
    count(record, -1);
    SessionRecord placed = replace(moved.build());
    count(placed, 1);
    return placed;
  }

  /** Whether a request has moved a session from this epoch on, and nothing has since. */
  public static boolean isMoved(SessionRecord record, long epoch, String requestId) {
    return !requestId.isEmpty()
        && requestId.equals(record.getMoveRequest())
        && record.getMovedEpoch() == epoch;
  }

  private SessionRecord replace(SessionRecord record) {
    open.put(record.getSession().getSessionId(), record);
    return record;
  }

  /**
   * Tells an open session.
   *
   * @throws KvtierException NOT_FOUND
   */
  public SessionRecord get(String id) {
    requireInRange("length of session_id", id.length(), 1, ID_LENGTH_MAX);
    SessionRecord record = open.get(id);
    if (record == null) {
      throw new KvtierException(
          Code.NOT_FOUND, "session %s is not open; it was closed or never opened".formatted(id));
    }
    return record;
  }

  /**
   * Tells an open session to a caller that must know its epoch.
   *
   * @throws KvtierException NOT_FOUND or PRECONDITION (stale epoch)
   */
  public SessionRecord get(String id, long epoch) {
    SessionRecord record = get(id);
    requireEpoch(record, epoch);
    return record;
  }

  /** Tells an open session, if it is. */
  public Optional<SessionRecord> find(String id) {
    return Optional.ofNullable(open.get(id));
  }

  /**
   * Stores the plan that was made for a session; one that was opened with a plan keeps that.
   *
   * @throws KvtierException NOT_FOUND or PRECONDITION (stale epoch)
   */
  public SessionRecord setPlan(String id, long epoch, Plan plan) {
    SessionRecord record = get(id, epoch);
    if (record.getPlanGiven()) {
      return record;
    }
    SessionRecord.Builder planned = record.toBuilder();
    planned.getSessionBuilder().setPlan(plan);
    return replace(planned.build());
  }

  /**
   * Notes that a session's curves are taken into its model's profile, which each session's are
   * once.
   *
   * @return whether they were not yet
   * @throws KvtierException NOT_FOUND or PRECONDITION (stale epoch)
   */
  public boolean markProfiled(String id, long epoch) {
    SessionRecord record = get(id, epoch);
    replace(record.toBuilder().setProfiled(true).build());
    return !record.getProfiled();
  }

  /**
   * Removes an open session.
   *
   * @return the session as it was
   * @throws KvtierException NOT_FOUND or PRECONDITION (stale epoch)
   */
  public SessionRecord end(String id, long epoch) {
    SessionRecord record = get(id, epoch);
    open.remove(id);
    byOpenRequest.remove(record.getOpenRequest(), id);
    count(record, -1);
    return record;
  }

  /**
   * Whether another open session may need pages that a session stored, or that it was forked from:
   * one of the same descent, unless both are where they were opened, at one worker, which counts
   * who uses which page.
   */
  public boolean pagesNeeded(SessionRecord record) {
    Session own = record.getSession();
    return open.values().stream()
        .map(SessionRecord::getSession)
        .filter(other -> !other.getSessionId().equals(own.getSessionId()))
        .filter(other -> isKin(own, other))
        .anyMatch(other ->
            own.getEpoch() != FIRST_EPOCH
                || other.getEpoch() != FIRST_EPOCH
                || !own.getWorkerTarget().equals(other.getWorkerTarget()));
  }

  private static boolean isKin(Session one, Session other) {
    return hasOrIs(one, other.getSessionId())
        || other.getAncestorsList().stream().anyMatch(a -> hasOrIs(one, a.getSessionId()));
  }

  private static boolean hasOrIs(Session session, String id) {
    return session.getSessionId().equals(id)
        || session.getAncestorsList().stream().anyMatch(a -> a.getSessionId().equals(id));
  }

  /** Copies the open sessions, oldest first. */
  public List<SessionRecord> list() {
    return List.copyOf(open.values());
  }

  /** Copies the sessions that a worker has, oldest first. */
  public List<SessionRecord> on(String workerTarget) {
    return open.values().stream()
        .filter(record -> record.getSession().getWorkerTarget().equals(workerTarget))
        .toList();
  }

  /** Counts the open sessions. */
  public int count() {
    return open.size();
  }

  /** Counts the sessions that a worker has. */
  public int countOn(String workerTarget) {
    return countByTarget.getOrDefault(workerTarget, 0);
  }

  /** Forgets everything. */
  public void clear() {
    open.clear();
    byOpenRequest.clear();
    countByTarget.clear();
    countByPrefix.clear();
  }

  /** Takes a session of a snapshot in, in the snapshot's order. */
  public void restore(SessionRecord record) {
    put(record);
  }

  private static void requireEpoch(SessionRecord record, long epoch) {
    Session session = record.getSession();
    if (session.getEpoch() != epoch) {
      throw KvtierException.precondition(
          "epoch is %s and session %s has epoch %s; get the session again and use its epoch",
          Long.toUnsignedString(epoch),
          session.getSessionId(),
          Long.toUnsignedString(session.getEpoch()));
    }
  }
}
