package io.kvtier.client;

import static io.kvtier.KvtierException.requireInRange;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.v1.ClusterGrpc;
import io.kvtier.v1.FreedSession;
import io.kvtier.v1.HeartbeatRequest;
import io.kvtier.v1.HeartbeatResponse;
import io.kvtier.v1.MembershipRequest;
import io.kvtier.v1.MembershipResponse;
import io.kvtier.v1.Node;
import io.kvtier.v1.RegisterRequest;
import io.kvtier.v1.Role;
import io.kvtier.v1.SessionRef;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;
import java.util.function.Function;
import java.util.function.Supplier;
import java.util.logging.Level;
import java.util.logging.Logger;

/**
 * A node's membership of the cluster: registered with the coordinator, and kept so by heartbeats at
 * a third of the lease until it is closed. When the coordinator is away or has forgotten the node,
 * it registers again as soon as the coordinator answers. After {@link #close} the coordinator keeps
 * the node until its lease runs out.
 *
 * <p>Owns its channel and one daemon thread, on which the load supplier is called. Thread-safe.
 */
public final class ClusterMember implements AutoCloseable {
  private static final Logger LOG = Logger.getLogger(ClusterMember.class.getName());

  private static final Duration JOIN_TIMEOUT_DEFAULT = Duration.ofSeconds(30);
  private static final long CALL_DEADLINE_NS = Duration.ofSeconds(2).toNanos();
  private static final long BACK_OFF_MIN_NS = Duration.ofMillis(50).toNanos();
  private static final long BACK_OFF_MAX_NS = Duration.ofSeconds(2).toNanos();
  private static final int HEARTBEATS_PER_LEASE = 3;

  /** Idle sessions that one heartbeat tells of. */
  public static final int IDLE_MAX = 256;

  /**
   * What a node tells of itself with each heartbeat.
   *
   * @param bytesUsed of the node's bytes_max
   * @param sessions sessions attached; 0 for a tier node
   * @param idle sessions that have not been used for as long as they may, longest first; what is
   *     beyond {@link #IDLE_MAX} waits for a later heartbeat
   */
  public record Load(long bytesUsed, int sessions, List<SessionRef> idle) {
    public Load {
      requireInRange("bytesUsed", bytesUsed, 0, Long.MAX_VALUE);
      requireInRange("sessions", sessions, 0, Integer.MAX_VALUE);
      idle = idle.stream().limit(IDLE_MAX).toList();
    }

    /** That of a node without idle sessions. */
    public Load(long bytesUsed, int sessions) {
      this(bytesUsed, sessions, List.of());
    }
  }

  private final Coordinators coordinators;
  private final Node node;
  private final Supplier<Load> load;
  private final Consumer<FreedSession> freed;
  private final CountDownLatch closing = new CountDownLatch(1);
  private final Thread thread;
  private volatile long heartbeatNs;

  private ClusterMember(
      Coordinators coordinators, Node node, Supplier<Load> load, Consumer<FreedSession> freed) {
    this.coordinators = coordinators;
    this.node = node;
    this.load = load;
    this.freed = freed;
    this.thread =
        Thread.ofPlatform()
            .daemon()
            .name("kvtier-member-" + node.getNodeId())
            .unstarted(this::keepLease);
  }

  /**
   * Joins the cluster; the node is a member when this returns. Tries for at most 30 s: some
   * elections of coordinators that have just been started, on a busy machine.
   *
   * @param coordinatorTarget host:port of the coordinator, or of several with commas between them
   * @param load asked before each heartbeat, on the member's thread; should not block
   * @throws KvtierException UNAVAILABLE if the coordinator does not answer, or as it refused
   */
  public static ClusterMember join(String coordinatorTarget, Node node, Supplier<Load> load) {
    return join(coordinatorTarget, node, load, JOIN_TIMEOUT_DEFAULT);
  }

  /**
   * Joins the cluster, as above.
   *
   * @param freed told of each idle session that the node must free, on the member's thread
   */
  public static ClusterMember join(
      String coordinatorTarget, Node node, Supplier<Load> load, Consumer<FreedSession> freed) {
    return join(coordinatorTarget, node, load, freed, JOIN_TIMEOUT_DEFAULT);
  }

  /** Joins the cluster, as above, trying for at most {@code timeout}. */
  public static ClusterMember join(
      String coordinatorTarget, Node node, Supplier<Load> load, Duration timeout) {
    return join(coordinatorTarget, node, load, _ -> {}, timeout);
  }

  private static ClusterMember join(
      String coordinatorTarget,
      Node node,
      Supplier<Load> load,
      Consumer<FreedSession> freed,
      Duration timeout) {
    requireInRange("join timeout in ms", timeout.toMillis(), 1, Duration.ofHours(1).toMillis());
    Coordinators coordinators = Coordinators.at(coordinatorTarget);
    try {
      ClusterMember member = new ClusterMember(coordinators, node, load, freed);
      member.registerWithin(timeout);
      member.thread.start();
      return member;
    } catch (RuntimeException e) {
      coordinators.close();
      throw e;
    }
  }

  /**
   * Asks the coordinator for the nodes of a role whose lease holds, by node id.
   *
   * @throws KvtierException UNAVAILABLE or DEADLINE if the coordinator does not answer
   */
  public List<Node> members(Role role) {
    return membership().getNodesList().stream().filter(member -> member.getRole() == role).toList();
  }

  /**
   * Asks the coordinator for the nodes whose lease holds, and their epoch.
   *
   * @throws KvtierException UNAVAILABLE or DEADLINE if the coordinator does not answer
   */
  public MembershipResponse membership() {
    return call(CALL_DEADLINE_NS, stub -> stub.membership(MembershipRequest.getDefaultInstance()));
  }

  /** Ends the heartbeats and closes the channel; idempotent. */
  @Override
  public void close() {
    closing.countDown();
    thread.interrupt();
    coordinators.close();
  }

  private void registerWithin(Duration timeout) {
    long startNs = System.nanoTime();
    for (int failures = 0; ; failures++) {
      long leftNs = timeout.toNanos() - (System.nanoTime() - startNs);
      try {
        register(Math.min(CALL_DEADLINE_NS, leftNs));
        return;
      } catch (KvtierException e) {
        if (e.code() != Code.UNAVAILABLE && e.code() != Code.DEADLINE) {
          throw e;
        }
        long waitNs = backOffNs(failures);
        leftNs = timeout.toNanos() - (System.nanoTime() - startNs);
        if (leftNs <= waitNs || !pause(waitNs)) {
          throw new KvtierException(
              Code.UNAVAILABLE,
              "%s did not let node %s join within %s; check that it runs and is reached there: %s"
                  .formatted(peer(), node.getNodeId(), timeout, e.getMessage()),
              e);
        }
      }
    }
  }

  /** Waits; false if the thread was interrupted meanwhile. */
  private static boolean pause(long waitNs) {
    try {
      TimeUnit.NANOSECONDS.sleep(waitNs);
      return true;
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      return false;
    }
  }

  private void keepLease() {
    boolean registered = true;
    int failures = 0;
    long waitNs = heartbeatNs;
    while (!closes(waitNs)) {
      try {
        registered = registered && heartbeat();
        if (!registered) {
          register(CALL_DEADLINE_NS);
          registered = true;
        }
        if (failures > 0) {
          LOG.log(
              Level.INFO,
              "node {0} keeps its lease again: {1} answers",
              new Object[] {node.getNodeId(), peer()});
        }
        failures = 0;
        waitNs = heartbeatNs;
      } catch (RuntimeException e) {
        // The load supplier is foreign code: whatever it throws must not cost the node its lease.
        if (failures == 0 && closing.getCount() > 0) {
          LOG.log(
              Level.WARNING,
              "node {0} cannot renew its lease and keeps trying: {1}",
              new Object[] {node.getNodeId(), e.getMessage()});
        }
        waitNs = backOffNs(failures);
        failures++;
      }
    }
  }

  private boolean closes(long waitNs) {
    try {
      return closing.await(waitNs, TimeUnit.NANOSECONDS);
    } catch (InterruptedException e) {
      // Only close interrupts this thread, which ends with it.
      return true;
    }
  }

  private void register(long deadlineNs) {
    RegisterRequest request = RegisterRequest.newBuilder().setNode(node).build();
    long leaseMs = call(deadlineNs, stub -> stub.register(request)).getLeaseMs();
    heartbeatNs = TimeUnit.MILLISECONDS.toNanos(Math.max(1, leaseMs)) / HEARTBEATS_PER_LEASE;
  }

  /** Renews the lease; false if the coordinator does not know the node (any more). */
  private boolean heartbeat() {
    Load now = load.get();
    HeartbeatRequest request =
        HeartbeatRequest.newBuilder()
            .setNodeId(node.getNodeId())
            .setBytesUsed(now.bytesUsed())
            .setSessions(now.sessions())
            .addAllIdleSessions(now.idle())
            .build();
    HeartbeatResponse response;
    try {
      response = call(CALL_DEADLINE_NS, stub -> stub.heartbeat(request));
    } catch (KvtierException e) {
      if (e.code() == Code.NOT_FOUND) {
        return false;
      }
      throw e;
    }
    response.getFreedSessionsList().forEach(freed);
    return true;
  }

  private <R> R call(long deadlineNs, Function<ClusterGrpc.ClusterBlockingStub, R> call) {
    // Our own back-off bounds the attempts; the channel's grows to minutes.
    coordinators.wake();
    return coordinators.call(
        ClusterGrpc::newBlockingStub, Duration.ofNanos(Math.max(1, deadlineNs)), call);
  }

  private String peer() {
    return "coordinator at " + coordinators.targets();
  }

  /** Doubles from 50 ms to 2 s, less up to half, so that nodes do not return all at once. */
  private static long backOffNs(int failures) {
    long fullNs = Math.min(BACK_OFF_MAX_NS, BACK_OFF_MIN_NS << Math.min(failures, 10));
    return fullNs - ThreadLocalRandom.current().nextLong(fullNs / 2);
  }
}
