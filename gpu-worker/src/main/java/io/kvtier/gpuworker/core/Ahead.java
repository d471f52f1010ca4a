package io.kvtier.gpuworker.core;

/** What of a head is fetched ahead of a query that has no hint. */
public enum Ahead {
  /** What the last query chose, where that is measured to be chosen again. */
  MEASURED,

  NOTHING,

  /** What the last query chose. */
  LAST
}
