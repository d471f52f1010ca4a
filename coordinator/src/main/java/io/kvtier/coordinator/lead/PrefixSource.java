package io.kvtier.coordinator.lead;

import io.kvtier.coordinator.prefix.StoredPrefix;
import io.kvtier.page.Codec;
import io.kvtier.page.PrefixChain;

/** What the tiers have told that they store of prompts. Thread-safe; does not block. */
public interface PrefixSource {
  /** Finds the longest stored beginning of a chain. */
  StoredPrefix find(PrefixChain chain, int layers, Codec codec);

  /**
   * Whether every tier that is a member has told all that it holds. What was told by one that does
   * not answer now counts.
   */
  boolean whole();
}
