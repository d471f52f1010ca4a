package io.kvtier.deploy.simulate;

import io.kvtier.coordinator.lead.PrefixSource;
import io.kvtier.coordinator.lead.Workers;
import io.kvtier.coordinator.log.ReplicatedLog;
import io.kvtier.replica.Rendezvous;
import io.kvtier.replica.ReplicaConfig;
import java.util.function.Function;
import java.util.function.LongSupplier;
import java.util.function.UnaryOperator;

/**
 * What a run is made of: the product's own parts, unless a test puts faulty ones in their place.
 *
 * @param tiers makes a tier's pages
 * @param ranking ranks the tiers of a membership for pages
 * @param log stands between the coordinator and its log
 * @param workers stands between the coordinator and its workers
 * @param prefixes stands between the coordinator and what the tiers have told
 * @param replicas how pages are replicated, given how they should be
 */
record Parts(
    TierMaker tiers,
    Function<Rendezvous, PageRanking> ranking,
    UnaryOperator<ReplicatedLog> log,
    UnaryOperator<Workers> workers,
    UnaryOperator<PrefixSource> prefixes,
    UnaryOperator<ReplicaConfig> replicas) {
  /** Makes the pages of a tier that starts. */
  @FunctionalInterface
  interface TierMaker {
    TierPages make(long bytesMax, long instance, LongSupplier clockNs);
  }

  /** The product's own. */
  static Parts product() {
    return new Parts(
        CachedTier::new,
        members -> members::ranking,
        UnaryOperator.identity(),
        UnaryOperator.identity(),
        UnaryOperator.identity(),
        UnaryOperator.identity());
  }

  Parts withTiers(TierMaker faulty) {
    return new Parts(faulty, ranking, log, workers, prefixes, replicas);
  }

  Parts withRanking(Function<Rendezvous, PageRanking> faulty) {
    return new Parts(tiers, faulty, log, workers, prefixes, replicas);
  }

  Parts withLog(UnaryOperator<ReplicatedLog> faulty) {
    return new Parts(tiers, ranking, faulty, workers, prefixes, replicas);
  }

  Parts withWorkers(UnaryOperator<Workers> faulty) {
    return new Parts(tiers, ranking, log, faulty, prefixes, replicas);
  }

  Parts withPrefixes(UnaryOperator<PrefixSource> faulty) {
    return new Parts(tiers, ranking, log, workers, faulty, replicas);
  }

  Parts withReplicas(UnaryOperator<ReplicaConfig> faulty) {
    return new Parts(tiers, ranking, log, workers, prefixes, faulty);
  }
}
