package io.kvtier.replica;

import static io.kvtier.KvtierException.requireInRange;

import java.time.Duration;

/**
 * How pages are replicated.
 *
 * @param replicas copies of each page, on distinct nodes, 1..8; fewer where the cluster has fewer
 *     nodes
 * @param writeAcks copies that must be stored before a put returns, 1..replicas; fewer where the
 *     cluster has fewer nodes
 * @param askTimeout how long a node may be silent in a read before the next one is asked in its
 *     place, 1 ms..10 min
 * @param timeout longest wait of a read or put, askTimeout..10 min
 * @param hedgePercent most pages of a hundred that are asked of a second node because the first is
 *     slow, 0..50
 * @param nodesMax most nodes that a page is looked for on, replicas..64
 * @param callsPerNodeMax most calls to one node under way, 1..4096
 * @param lateBytesMax bytes of copies that may still be on their way after their put returned, 0..1
 *     TiB; beyond it a put waits for all its copies
 * @param repairsMax pages that may wait for repair, 1..2^20; more are dropped and counted
 * @param repairTriesMax tries to repair a page, 1..100
 * @param keysMax keys of stored pages that are remembered, so that those whose homes change with
 *     the membership are copied there, 0..2^24; pages beyond are copied when a read misses them
 * @param repairDelay wait before a page that could not be repaired is tried again, doubled each
 *     time, 1 ms..1 h
 */
public record ReplicaConfig(
    int replicas,
    int writeAcks,
    Duration askTimeout,
    Duration timeout,
    int hedgePercent,
    int nodesMax,
    int callsPerNodeMax,
    long lateBytesMax,
    int repairsMax,
    int repairTriesMax,
    int keysMax,
    Duration repairDelay) {
  /** Most copies of a page. */
  public static final int REPLICAS_MAX = 8;

  private static final long TIMEOUT_MS_MAX = 600_000;

  public ReplicaConfig {
    requireInRange("replicas", replicas, 1, REPLICAS_MAX);
    requireInRange("write acks", writeAcks, 1, replicas);
    requireInRange("ask timeout ms", askTimeout.toMillis(), 1, TIMEOUT_MS_MAX);
    requireInRange("timeout ms", timeout.toMillis(), askTimeout.toMillis(), TIMEOUT_MS_MAX);
    requireInRange("hedge percent", hedgePercent, 0, 50);
    requireInRange("nodes max", nodesMax, replicas, 64);
    requireInRange("calls per node max", callsPerNodeMax, 1, 4096);
    requireInRange("late bytes max", lateBytesMax, 0, 1L << 40);
    requireInRange("repairs max", repairsMax, 1, 1 << 20);
    requireInRange("repair tries max", repairTriesMax, 1, 100);
    requireInRange("keys max", keysMax, 0, 1 << 24);
    requireInRange("repair delay ms", repairDelay.toMillis(), 1, 3_600_000);
  }

  /**
   * R copies, W acknowledged, everything else at its default: a node may be silent for a quarter of
   * the time-out, 5 % hedges, 16 nodes, 256 calls a node, 64 MiB late, 65,536 repairs, tried 8
   * times from .5 s on, 262,144 keys.
   */
  public static ReplicaConfig of(int replicas, int writeAcks, Duration timeout) {
    return new ReplicaConfig(
        replicas,
        writeAcks,
        timeout.dividedBy(4).compareTo(Duration.ofMillis(1)) < 0 ? timeout : timeout.dividedBy(4),
        timeout,
        5,
        16,
        256,
        64L << 20,
        1 << 16,
        8,
        1 << 18,
        Duration.ofMillis(500));
  }
}
