package io.kvtier.deploy.simulate;

import io.kvtier.page.PageKey;

/** Ranks the tiers of an epoch for a page, as {@link io.kvtier.replica.Rendezvous#ranking} does. */
@FunctionalInterface
interface PageRanking {
  int[] ranking(PageKey key, int countMax);
}
