package io.kvtier.cachetier.cache;

/** Why a page was removed. */
public enum Removal {
  /** Room was needed, and it was the coldest of the tenant that held the most. */
  SIZE,
  /** Its tenant needed room within its own quota, and it was the coldest. */
  QUOTA,
  /** Its time to live was over. */
  TTL,
  /** Its verification failed. */
  CORRUPT,
  /** A client deleted it. */
  ASKED
}
