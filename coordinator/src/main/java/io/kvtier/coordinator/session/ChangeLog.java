package io.kvtier.coordinator.session;

import io.kvtier.v1.Session;
import io.kvtier.v1.SessionChange;
import io.kvtier.v1.SessionChangeKind;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/**
 * The last changes of sessions, numbered without a gap from 1 on; older ones are dropped. Not
 * thread-safe.
 */
public final class ChangeLog {
  private final int changesMax;
  private final ArrayDeque<SessionChange> changes = new ArrayDeque<>();
  private long sequence;

  public ChangeLog(int changesMax) {
    this.changesMax = changesMax;
  }

  void add(SessionChange change) {
    sequence++;
    changes.addLast(change);
    if (changes.size() > changesMax) {
      changes.removeFirst();
    }
  }

  /** Notes what has happened to a session. */
  public void add(SessionChangeKind kind, Session session) {
    add(SessionChange.newBuilder().setKind(kind).setSession(session).build());
  }

  /** The number of the last change. */
  public long sequence() {
    return sequence;
  }

  /**
   * At most {@code max} changes after one, in order; empty if some of them are not here, since they
   * are too old or yet to come.
   */
  public Optional<List<SessionChange>> after(long last, int max) {
    long oldest = sequence - changes.size();
    if (last < oldest || last > sequence) {
      return Optional.empty();
    }
    return Optional.of(new ArrayList<>(changes.stream().skip(last - oldest).limit(max).toList()));
  }

  /** Goes on from a snapshot's number, without the changes before it. */
  public void restore(long atSequence) {
    changes.clear();
    sequence = atSequence;
  }
}
