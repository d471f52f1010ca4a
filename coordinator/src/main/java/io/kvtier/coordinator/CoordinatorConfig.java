package io.kvtier.coordinator;

import static io.kvtier.KvtierException.requireInRange;

import io.kvtier.KvtierException;
import io.kvtier.coordinator.session.SessionTable;
import io.kvtier.rpc.EndpointConfig;
import java.time.Duration;
import java.util.Optional;

/**
 * How a coordinator runs.
 *
 * @param endpoint where it listens
 * @param sessionsMax sessions open at once, 1..65536
 * @param nodeLease how long a node stays a member without a heartbeat, 10 ms..1 h
 * @param workerDeadline how long a worker may take to accept or free a session, 1 ms..5 min
 * @param replication how its state is kept; without it, in memory and by it alone
 */
public record CoordinatorConfig(
    EndpointConfig endpoint,
    int sessionsMax,
    Duration nodeLease,
    Duration workerDeadline,
    Optional<ReplicationConfig> replication) {
  private static final int SESSIONS_MAX = 1 << 16;
  private static final Duration NODE_LEASE_DEFAULT = Duration.ofSeconds(15);
  private static final Duration WORKER_DEADLINE_DEFAULT = Duration.ofSeconds(10);

  public CoordinatorConfig {
    requireInRange("sessionsMax", sessionsMax, 1, SESSIONS_MAX);
    requireBetween("nodeLease", nodeLease, Duration.ofMillis(10), Duration.ofHours(1));
    requireBetween("workerDeadline", workerDeadline, Duration.ofMillis(1), Duration.ofMinutes(5));
  }

  /** One that keeps its state in memory. */
  public CoordinatorConfig(
      EndpointConfig endpoint, int sessionsMax, Duration nodeLease, Duration workerDeadline) {
    this(endpoint, sessionsMax, nodeLease, workerDeadline, Optional.empty());
  }

  /** Loopback on free ports, 1,024 sessions, a lease of 15 s, a deadline of 10 s. */
  public static CoordinatorConfig defaults() {
    return new CoordinatorConfig(
        EndpointConfig.loopback(),
        SessionTable.SESSIONS_DEFAULT,
        NODE_LEASE_DEFAULT,
        WORKER_DEADLINE_DEFAULT);
  }

  /** The same, listening elsewhere. */
  public CoordinatorConfig withEndpoint(EndpointConfig other) {
    return new CoordinatorConfig(other, sessionsMax, nodeLease, workerDeadline, replication);
  }

  /** The same with another bound of sessions. */
  public CoordinatorConfig withSessionsMax(int sessions) {
    return new CoordinatorConfig(endpoint, sessions, nodeLease, workerDeadline, replication);
  }

  /** The same, keeping its state so. */
  public CoordinatorConfig withReplication(ReplicationConfig kept) {
    return new CoordinatorConfig(
        endpoint, sessionsMax, nodeLease, workerDeadline, Optional.of(kept));
  }

  private static void requireBetween(String name, Duration value, Duration min, Duration max) {
    if (value.compareTo(min) < 0 || value.compareTo(max) > 0) {
      throw KvtierException.invalid("%s is %s; it must be %s..%s", name, value, min, max);
    }
  }
}
