package io.kvtier.gpuworker.grpc;

import io.kvtier.replica.ReplicaConfig;
import io.kvtier.replica.ReplicaCounts;
import io.kvtier.replica.ReplicaCounts.Count;
import io.micrometer.core.instrument.FunctionCounter;
import io.micrometer.core.instrument.MeterRegistry;
import java.util.Locale;

/** What a worker's replication measures; {@link Count} tells what each counter means. */
public final class ReplicaMeters {
  private ReplicaMeters() {}

  /** Registers all meters; they read their values when they are asked. */
  public static void bind(MeterRegistry meters, ReplicaCounts counts) {
    for (Count count : Count.values()) {
      String name = count.name().toLowerCase(Locale.ROOT).replace('_', '.');
      FunctionCounter.builder("kvtier.worker.replica." + name, counts, c -> c.get(count))
          .description(description(count))
          .register(meters);
    }
    for (int rank = 0; rank <= ReplicaConfig.REPLICAS_MAX; rank++) {
      int of = rank;
      FunctionCounter.builder("kvtier.worker.replica.hits", counts, c -> c.hits(of))
          .description("pages served by the node of a rank; 0 is a page's first home")
          .tag("rank", Integer.toString(rank))
          .register(meters);
    }
  }

  private static String description(Count count) {
    return switch (count) {
      case FAIL_OVERS -> "pages asked of the next node, since one could not serve them";
      case HEDGES_SENT -> "pages asked of a second node, since the first was slow";
      case HEDGES_WON -> "hedges whose answer came first";
      case FLAWED_ANSWERS -> "pages whose checksums failed on arrival";
      case SHORT_ACKS -> "pages put with fewer copies than replicas, for want of nodes";
      case COPIES_FAILED -> "copies that a node did not store";
      case REPAIRS_QUEUED -> "pages that were to be repaired";
      case REPAIRS_DONE -> "pages that are on all their homes again";
      case REPAIRS_DROPPED -> "repairs given up";
    };
  }
}
