package io.kvtier.cachetier;

/**
 * The outcome of reading a page.
 *
 * @param <R> what a reader makes of a page
 */
public sealed interface Read<R> {
  /** The page is there and verified. */
  record Hit<R>(R value) implements Read<R> {}

  /** The page is not served. */
  record Miss<R>(MissReason reason) implements Read<R> {}

  /** Why a page is not served. */
  enum MissReason {
    /** It is not stored. */
    ABSENT,
    /** It was stored, but its verification failed: it has been removed. */
    CORRUPT
  }
}
