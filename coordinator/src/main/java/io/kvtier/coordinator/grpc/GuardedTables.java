package io.kvtier.coordinator.grpc;

import io.kvtier.coordinator.membership.MembershipTable;
import io.kvtier.coordinator.session.SessionTable;
import io.kvtier.v1.Node;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.LongSupplier;
import java.util.logging.Level;
import java.util.logging.Logger;

/**
 * The coordinator's tables behind its one lock, with its one clock. Every access first removes the
 * nodes whose lease has run out, so no timer is needed and nobody sees an expired node. The lock is
 * never held over a call to a worker.
 */
public final class GuardedTables {
  private static final Logger LOG = Logger.getLogger(GuardedTables.class.getName());

  private final ReentrantLock lock = new ReentrantLock();
  private final SessionTable sessions;
  private final MembershipTable members;
  private final LongSupplier nanoClock;

  /**
   * Takes both tables over; nobody else may touch them from now on.
   *
   * @param nanoClock monotonic nanoseconds, as {@link System#nanoTime}
   */
  public GuardedTables(SessionTable sessions, MembershipTable members, LongSupplier nanoClock) {
    this.sessions = sessions;
    this.members = members;
    this.nanoClock = nanoClock;
  }

  /** Short work under the lock. */
  @FunctionalInterface
  public interface Work<T> {
    /** Does the work; what it throws reaches the caller. */
    T run(SessionTable sessions, MembershipTable members, long nowNs);
  }

  /** Runs work under the lock. */
  public <T> T call(Work<T> work) {
    lock.lock();
    try {
      long nowNs = nanoClock.getAsLong();
      for (Node lost : members.expire(nowNs)) {
        LOG.log(
            Level.WARNING,
            "node {0} at {1} is lost: its lease ran out without a heartbeat",
            new Object[] {lost.getNodeId(), lost.getTarget()});
      }
      return work.run(sessions, members, nowNs);
    } finally {
      lock.unlock();
    }
  }
}
