package io.kvtier.replica;

import java.util.EnumMap;
import java.util.Map;
import java.util.concurrent.atomic.LongAdder;

/** What replication has done since its start. Safe for any number of threads. */
public final class ReplicaCounts {
  /** What is counted. */
  public enum Count {
    /** Reads of pages that one node could not serve and the next was asked for. */
    FAIL_OVERS,
    /** Reads of pages that were asked of a second node because the first was slow. */
    HEDGES_SENT,
    /** Hedges whose answer came first. */
    HEDGES_WON,
    /** Answers whose checksums failed here, after the node had found them right. */
    FLAWED_ANSWERS,
    /** Pages whose put returned with fewer copies than replicas, since the cluster had no more. */
    SHORT_ACKS,
    /** Copies that could not be stored on the node that they were sent to. */
    COPIES_FAILED,
    /** Pages that were to be repaired. */
    REPAIRS_QUEUED,
    /** Pages that are on all their homes again. */
    REPAIRS_DONE,
    /** Pages whose repair was given up: too many wait, or too many tries. */
    REPAIRS_DROPPED
  }

  private final LongAdder[] hitsByRank = new LongAdder[ReplicaConfig.REPLICAS_MAX + 1];
  private final Map<Count, LongAdder> counts = new EnumMap<>(Count.class);

  public ReplicaCounts() {
    java.util.Arrays.setAll(hitsByRank, rank -> new LongAdder());
    for (Count count : Count.values()) {
      counts.put(count, new LongAdder());
    }
  }

  /** The value of a counter. */
  public long get(Count count) {
    return adder(count).sum();
  }

  /**
   * Pages served by the node of a rank: 0 is a page's first home; {@link
   * ReplicaConfig#REPLICAS_MAX} stands for that rank and all beyond.
   */
  public long hits(int rank) {
    return hitsByRank[rank].sum();
  }

  /** Counts an event. */
  public void add(Count count, long n) {
    adder(count).add(n);
  }

  void hit(int rank) {
    hitsByRank[Math.min(rank, ReplicaConfig.REPLICAS_MAX)].increment();
  }

  private LongAdder adder(Count count) {
    return java.util.Objects.requireNonNull(counts.get(count));
  }
}
