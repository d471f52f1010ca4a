package io.kvtier.gpuworker;

import static io.kvtier.KvtierException.requireInRange;

import io.kvtier.KvtierException;
import io.kvtier.gpuworker.trace.TraceConfig;
import io.kvtier.replica.ReplicaConfig;
import io.kvtier.rpc.EndpointConfig;
import java.time.Duration;
import java.util.Optional;

/**
 * A worker's settings.
 *
 * @param endpoint where it listens
 * @param coordinatorTarget the coordinator it joins, host:port
 * @param nodeId its name in the cluster, 1..64 characters of [A-Za-z0-9._-]
 * @param deviceBytesMax device bytes for sessions, 1 MiB or more
 * @param sessionsMax most sessions at a time, 1..65536
 * @param pendingBytesMax bytes of a session's pages that may wait to be stored, 1 MiB or more
 * @param pendingBytesTotalMax the same of all sessions together, 1 MiB or more; they are on the
 *     heap
 * @param tierTimeout longest wait for the tier or the coordinator, 1 ms..10 min
 * @param replicas tier nodes that keep each page, 1..8; 1: a session's pages are all on one node
 * @param writeAcks of them, how many must have a page before it counts as durable, 1..replicas
 * @param trace where each step is recorded; empty: nowhere
 * @param device what it computes on, as {@link Devices#open} takes it
 * @param leaseTtl how long the worker's pages stay in tiers after its death, 1 s..1 h: leases run
 *     so long, and are renewed
 */
public record GpuWorkerConfig(
    EndpointConfig endpoint,
    String coordinatorTarget,
    String nodeId,
    long deviceBytesMax,
    int sessionsMax,
    long pendingBytesMax,
    long pendingBytesTotalMax,
    Duration tierTimeout,
    int replicas,
    int writeAcks,
    Optional<TraceConfig> trace,
    String device,
    Duration leaseTtl) {
  /** A call may wait for the tier twice, and must answer within its client's 15 s or more. */
  private static final Duration TIER_TIMEOUT_DEFAULT = Duration.ofSeconds(5);

  /** Calls under way take as much again and more: each has its chunk of rows on the heap. */
  private static final int PENDING_HEAP_SHARE = 4;

  private static final Duration LEASE_TTL_DEFAULT = Duration.ofSeconds(30);

  public GpuWorkerConfig {
    requireInRange("device bytes", deviceBytesMax, 1 << 20, Long.MAX_VALUE);
    requireInRange("sessions max", sessionsMax, 1, 1 << 16);
    requireInRange("pending bytes max", pendingBytesMax, 1 << 20, Long.MAX_VALUE);
    requireInRange("pending bytes total max", pendingBytesTotalMax, 1 << 20, Long.MAX_VALUE);
    requireInRange("tier timeout ms", tierTimeout.toMillis(), 1, 600_000);
    requireInRange("replicas", replicas, 1, ReplicaConfig.REPLICAS_MAX);
    requireInRange("write acks", writeAcks, 1, replicas);
    requireInRange("lease ttl ms", leaseTtl.toMillis(), 1000, 3_600_000);
    if (!nodeId.matches("[A-Za-z0-9._-]{1,64}")) {
      throw KvtierException.invalid(
          "node id is '%s'; it must be 1..64 characters of [A-Za-z0-9._-]", nodeId);
    }
  }

  /**
   * Everything at its default: loopback, 4 GiB on the processor, 256 sessions, 64 MiB pending a
   * session and a quarter of the largest heap in all, 5 s (of a client's 30), one copy of each
   * page, no trace.
   */
  public static GpuWorkerConfig of(String coordinatorTarget, String nodeId) {
    return new GpuWorkerConfig(
        EndpointConfig.loopback(),
        coordinatorTarget,
        nodeId,
        4L << 30,
        256,
        64L << 20,
        Math.max(1 << 20, Runtime.getRuntime().maxMemory() / PENDING_HEAP_SHARE),
        TIER_TIMEOUT_DEFAULT,
        1,
        1,
        Optional.empty(),
        Devices.CPU,
        LEASE_TTL_DEFAULT);
  }

  /** The same with other device bytes. */
  public GpuWorkerConfig withDeviceBytesMax(long bytes) {
    return new GpuWorkerConfig(
        endpoint,
        coordinatorTarget,
        nodeId,
        bytes,
        sessionsMax,
        pendingBytesMax,
        pendingBytesTotalMax,
        tierTimeout,
        replicas,
        writeAcks,
        trace,
        device,
        leaseTtl);
  }

  /** The same with another bound of all sessions' pages that may wait to be stored. */
  public GpuWorkerConfig withPendingBytesTotalMax(long bytes) {
    return new GpuWorkerConfig(
        endpoint,
        coordinatorTarget,
        nodeId,
        deviceBytesMax,
        sessionsMax,
        pendingBytesMax,
        bytes,
        tierTimeout,
        replicas,
        writeAcks,
        trace,
        device,
        leaseTtl);
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
        pendingBytesTotalMax,
        tierTimeout,
        replicas,
        writeAcks,
        trace,
        device,
        leaseTtl);
  }

  /** The same with so many copies of each page, and acknowledgements to wait for. */
  public GpuWorkerConfig withReplicas(int copies, int acks) {
    return new GpuWorkerConfig(
        endpoint,
        coordinatorTarget,
        nodeId,
        deviceBytesMax,
        sessionsMax,
        pendingBytesMax,
        pendingBytesTotalMax,
        tierTimeout,
        copies,
        acks,
        trace,
        device,
        leaseTtl);
  }

  /** The same with pages leased for another time. */
  public GpuWorkerConfig withLeaseTtl(Duration ttl) {
    return new GpuWorkerConfig(
        endpoint,
        coordinatorTarget,
        nodeId,
        deviceBytesMax,
        sessionsMax,
        pendingBytesMax,
        pendingBytesTotalMax,
        tierTimeout,
        replicas,
        writeAcks,
        trace,
        device,
        ttl);
  }

  /** The same on another device. */
  public GpuWorkerConfig withDevice(String other) {
    return new GpuWorkerConfig(
        endpoint,
        coordinatorTarget,
        nodeId,
        deviceBytesMax,
        sessionsMax,
        pendingBytesMax,
        pendingBytesTotalMax,
        tierTimeout,
        replicas,
        writeAcks,
        trace,
        other,
        leaseTtl);
  }

  /** The same with each step recorded. */
  public GpuWorkerConfig withTrace(TraceConfig to) {
    return new GpuWorkerConfig(
        endpoint,
        coordinatorTarget,
        nodeId,
        deviceBytesMax,
        sessionsMax,
        pendingBytesMax,
        pendingBytesTotalMax,
        tierTimeout,
        replicas,
        writeAcks,
        Optional.of(to),
        device,
        leaseTtl);
  }
}
