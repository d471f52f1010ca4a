package io.kvtier.cachetier.cache;

/** Is told of every page removed. */
@FunctionalInterface
public interface RemovalListener {
  /**
   * Called after the page is gone, under its key's lock: be brief, and do not call the cache.
   *
   * @param ageNs time since the page was stored, or since the start if it was found then
   */
  void removed(Removal reason, long ageNs, int length);
}
