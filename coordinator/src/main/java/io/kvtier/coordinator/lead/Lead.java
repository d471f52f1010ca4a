package io.kvtier.coordinator.lead;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.coordinator.log.Leadership;
import io.kvtier.coordinator.log.ReplicatedLog;
import io.kvtier.coordinator.membership.NodeLeases;
import io.kvtier.coordinator.session.Reservations;
import io.kvtier.coordinator.state.ClusterState;
import io.kvtier.v1.Applied;
import io.kvtier.v1.Command;
import io.kvtier.v1.Node;
import io.kvtier.v1.RemoveNodes;
import io.kvtier.v1.Role;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.LongSupplier;
import java.util.logging.Level;
import java.util.logging.Logger;

/**
 * What the coordinator that leads works with: the agreed state, and beside it what only the one
 * that leads knows, behind one lock with its clocks. Every access first has the nodes removed whose
 * lease has run out, so nobody sees an expired node. Its lock is never held over a call to another
 * process. Thread-safe.
 */
public final class Lead {
  private static final Logger LOG = Logger.getLogger(Lead.class.getName());

  /** A process that is only being started again is away for longer, too. */
  private static final long REFUSING_NS_MAX = Duration.ofSeconds(1).toNanos();

  /**
   * What a piece of work sees, under the lock.
   *
   * @param state what all coordinators agree on; only read
   * @param leases of nodes; nobody's where this coordinator does not lead
   * @param reservations of sessions that are about to open
   * @param nowNs monotonic nanoseconds
   * @param nowMs milliseconds since 1970
   */
  public record View(
      ClusterState state, NodeLeases leases, Reservations reservations, long nowNs, long nowMs) {
    /** Counts the sessions that a worker has or is about to get. */
    int countOn(String workerTarget) {
      return state.sessions().countOn(workerTarget) + reservations.countOn(workerTarget);
    }

    /** Counts the nodes of a role. */
    public int count(Role role) {
      return state.nodes().nodes(role).size();
    }

    /** Sums the bytes in use of a role's nodes, as they last told. */
    public double bytesUsed(Role role) {
      return state.nodes().nodes(role).stream()
          .mapToDouble(node -> leases.bytesUsed(node.getNodeId()))
          .sum();
    }
  }

  /** Short work under the lock. */
  @FunctionalInterface
  public interface Work<T> {
    /** Does the work; what it throws reaches the caller. */
    T run(View view);
  }

  private final ReplicatedLog log;
  private final Reservations reservations;
  private final NodeLeases leases;
  private final LongSupplier nanoClock;
  private final LongSupplier milliClock;
  private final ReentrantLock lock = new ReentrantLock();

  /** Held over commands that take nodes in or out, so that none removes a node that just joined. */
  private final ReentrantLock membership = new ReentrantLock();

  private long term;

  /**
   * Takes everything over; nobody else may touch it from now on.
   *
   * @param nanoClock monotonic nanoseconds, as {@link System#nanoTime}
   * @param milliClock as {@link System#currentTimeMillis}
   */
  public Lead(
      ReplicatedLog log,
      Reservations reservations,
      NodeLeases leases,
      LongSupplier nanoClock,
      LongSupplier milliClock) {
    this.log = log;
    this.reservations = reservations;
    this.leases = leases;
    this.nanoClock = nanoClock;
    this.milliClock = milliClock;
  }

  public Leadership leadership() {
    return log.leadership();
  }

  /** The log; commands go by {@link #submit}. */
  public ReplicatedLog log() {
    return log;
  }

  /** Monotonic nanoseconds. */
  long nowNs() {
    return nanoClock.getAsLong();
  }

  /** Runs work under the lock, once lapsed nodes are removed. */
  public <T> T call(Work<T> work) {
    removeLapsed();
    return look(work);
  }

  /** Runs work under the lock on what is there; a node's lease may have run out. */
  public <T> T look(Work<T> work) {
    lock.lock();
    try {
      return log.read(state ->
          work.run(
              new View(
                  state, leases, reservations, nanoClock.getAsLong(), milliClock.getAsLong())));
    } finally {
      lock.unlock();
    }
  }

  /** Removes the nodes whose lease has run out, if this coordinator leads. */
  public void removeLapsed() {
    Leadership now = log.leadership();
    if (!now.leads() || lapsed(now).isEmpty()) {
      return;
    }
    membership.lock();
    try {
      // Whoever had the lock may have removed them, or they may have joined again.
      List<Node> lapsed = lapsed(now);
      if (!lapsed.isEmpty()) {
        remove(lapsed, "its lease ran out without a heartbeat");
      }
    } finally {
      membership.unlock();
    }
  }

  private List<Node> lapsed(Leadership now) {
    return look(view -> {
      if (now.term() > term) {
        // Others have led meanwhile: what was heard before says nothing.
        term = now.term();
        leases.clear();
        LOG.log(Level.INFO, "this coordinator leads, in term {0}", Long.toString(term));
      }
      return leases.mayHaveLapsed(view.nowNs)
          ? leases.lapsed(view.state.nodes().nodes(), view.nowNs)
          : List.of();
    });
  }

  private void remove(List<Node> lost, String why) {
    RemoveNodes.Builder gone = RemoveNodes.newBuilder();
    lost.forEach(node -> gone.addNodeIds(node.getNodeId()));
    var _ = submit(Command.newBuilder().setRemoveNodes(gone));
    look(view -> {
      lost.forEach(node -> view.leases.forget(node.getNodeId()));
      return view;
    });
    for (Node node : lost) {
      LOG.log(
          Level.WARNING,
          "node {0} at {1} is lost: {2}",
          new Object[] {node.getNodeId(), node.getTarget(), why});
    }
  }

  /**
   * Removes the nodes that have refused connections for a while and not been heard of since, if
   * this coordinator leads: their processes have ended, and their leases need not run out. A node
   * that lives registers again with its next heartbeat.
   */
  public void removeRefusing(List<Refusing> refusing) {
    if (!log.leadership().leads() || refusing.isEmpty()) {
      return;
    }
    membership.lock();
    try {
      List<Node> lost =
          look(view ->
              refusing.stream()
                  .filter(each -> each.refusingNs() >= REFUSING_NS_MAX)
                  .filter(each -> view.state.nodes().knows(each.node()))
                  .filter(each ->
                      view.leases.unheardNs(each.node().getNodeId(), view.nowNs) >= REFUSING_NS_MAX)
                  .map(Refusing::node)
                  .toList());
      if (!lost.isEmpty()) {
        remove(lost, "nobody listens at its address any more");
      }
    } finally {
      membership.unlock();
    }
  }

  /**
   * Takes a node in and grants it a lease; one that is known as it is costs no command.
   *
   * @return the membership epoch
   * @throws KvtierException as it was refused, or as {@link #submit}
   */
  public long register(Node node) {
    removeLapsed();
    membership.lock();
    try {
      boolean known = look(view -> view.state.nodes().knows(node));
      if (!known) {
        var _ = submit(Command.newBuilder().setRegister(node));
      }
      return look(view -> {
        view.leases.grant(node.getNodeId(), view.nowNs);
        return view.state.nodes().epoch();
      });
    } finally {
      membership.unlock();
    }
  }

  /**
   * Has the coordinators agree on a command; must not be called under the lock.
   *
   * @return what came of it
   * @throws KvtierException as it was refused, or UNAVAILABLE if this coordinator does not lead or
   *     cannot tell whether they did
   */
  public Applied submit(Command.Builder command) {
    if (lock.isHeldByCurrentThread()) {
      throw new IllegalStateException("a command must not be submitted under the lock");
    }
    return ClusterState.requireDone(log.submit(command.setNowMs(milliClock.getAsLong()).build()));
  }

  /**
   * Runs work as {@link #call} does, on a state that no other coordinator has changed since. Must
   * not be called under the lock.
   *
   * @throws KvtierException UNAVAILABLE if that cannot be told
   */
  public <T> T callConfirmed(Work<T> work) {
    log.confirm();
    return call(work);
  }

  /**
   * Makes sure that this coordinator leads.
   *
   * @throws KvtierException UNAVAILABLE, naming the one that does
   */
  public void require() {
    Leadership now = log.leadership();
    if (!now.leads()) {
      throw new KvtierException(
          Code.UNAVAILABLE,
          now.leader()
              .map(leader -> "this coordinator does not lead; ask the one at " + leader)
              .orElse("no coordinator leads at the moment; try again"));
    }
  }
}
