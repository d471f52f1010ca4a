package io.kvtier.gpuworker;

import static io.kvtier.KvtierException.requireInRange;

import io.kvtier.KvtierException;
import io.kvtier.rpc.EndpointConfig;
import java.time.Duration;

/**
 * A worker's settings.
 *
 * @param endpoint where it listens
 * @param coordinatorTarget the coordinator it joins, host:port
 * @param nodeId its name in the cluster, 1..64 characters of [A-Za-z0-9._-]
 * @param deviceBytesMax device bytes for sessions, 1 MiB or more
 * @param sessionsMax most sessions at a time, 1..65536
 * @param pendingBytesMax bytes of a session's pages that may wait to be stored, 1 MiB or more
 * @param tierTimeout longest wait for the tier or the coordinator, 1 ms..10 min
 */
public record GpuWorkerConfig(
    EndpointConfig endpoint,
    String coordinatorTarget,
    String nodeId,
    long deviceBytesMax,
    int sessionsMax,
    long pendingBytesMax,
    Duration tierTimeout) {
  /** A call may wait for the tier twice, and must answer within its client's 15 s or more. */
  private static final Duration TIER_TIMEOUT_DEFAULT = Duration.ofSeconds(5);

  public GpuWorkerConfig {
    requireInRange("device bytes", deviceBytesMax, 1 << 20, Long.MAX_VALUE);
    requireInRange("sessions max", sessionsMax, 1, 1 << 16);
    requireInRange("pending bytes max", pendingBytesMax, 1 << 20, Long.MAX_VALUE);
    requireInRange("tier timeout ms", tierTimeout.toMillis(), 1, 600_000);
    if (!nodeId.matches("[A-Za-z0-9._-]{1,64}")) {
      throw KvtierException.invalid(
          "node id is '%s'; it must be 1..64 characters of [A-Za-z0-9._-]", nodeId);
    }
  }

  /**
   * Everything at its default: loopback, 4 GiB, 256 sessions, 64 MiB pending, 5 s (of a client's
   * 30).
   */
  public static GpuWorkerConfig of(String coordinatorTarget, String nodeId) {
    return new GpuWorkerConfig(
        EndpointConfig.loopback(),
        coordinatorTarget,
        nodeId,
        4L << 30,
        256,
        64L << 20,
        TIER_TIMEOUT_DEFAULT);
  }

  /** The same with other device bytes. */
  public GpuWorkerConfig withDeviceBytesMax(long bytes) {
    return new GpuWorkerConfig(
        endpoint, coordinatorTarget, nodeId, bytes, sessionsMax, pendingBytesMax, tierTimeout);
  }

  /** The same, listening elsewhere. */
  public GpuWorkerConfig withEndpoint(EndpointConfig other) {
    return new GpuWorkerConfig(
        other,
        coordinatorTarget,
        nodeId,
        deviceBytesMax,
        sessionsMax,
        pendingBytesMax,
        tierTimeout);
  }
}
