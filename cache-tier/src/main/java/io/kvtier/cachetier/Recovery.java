package io.kvtier.cachetier;

/**
 * What a store found when it opened after an unclean stop.
 *
 * @param pagesKept pages that were verified and kept
 * @param pagesDropped pages that failed their verification and were removed
 */
public record Recovery(long pagesKept, long pagesDropped) {
  /** The last stop was clean, or there is no past. */
  public static final Recovery NONE = new Recovery(0, 0);

  /** The sum of two stores' findings. */
  public Recovery plus(Recovery other) {
    return new Recovery(pagesKept + other.pagesKept, pagesDropped + other.pagesDropped);
  }
}
