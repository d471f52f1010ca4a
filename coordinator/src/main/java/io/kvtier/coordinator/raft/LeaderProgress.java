package io.kvtier.coordinator.raft;

import java.time.Duration;

/**
 * Notices a leader that leads nowhere: its followers answer its heartbeats, so that it stays in
 * office, but for a while nothing has been agreed on of what is in its log. One thread.
 */
final class LeaderProgress {
  /** Longer than a majority's disks take for a command at their slowest. */
  static final long STUCK_NS = Duration.ofSeconds(4).toNanos();

  private long term = -1;
  private long committed = -1;
  private long sinceNs;

  /**
   * How a coordinator stands in the log.
   *
   * @param leads whether it is the leader of the term
   * @param ready whether it has applied all that was agreed on in earlier terms
   * @param committed index of the last entry agreed on
   * @param last index of the last entry
   */
  record Standing(boolean leads, boolean ready, long term, long committed, long last) {
    private boolean waits() {
      return leads && (!ready || committed < last);
    }
  }

  /** Looks again; whether it should step down. The next time is again that much later. */
  boolean stuck(Standing now, long nowNs) {
    boolean moves = now.ready && now.committed != committed;
    if (!now.waits() || now.term != term || moves) {
      term = now.term;
      committed = now.committed;
      sinceNs = nowNs;
      return false;
    }
    if (nowNs - sinceNs < STUCK_NS) {
      return false;
    }
    sinceNs = nowNs;
    return true;
  }
}
