package io.kvtier.cachetier;

/** Who verifies the checksums of a page that is read. Puts and the scrub always verify. */
public enum Verification {
  /** The tier, before anybody sees a byte; a flawed page is a counted miss and is removed. */
  TIER,
  /**
   * The reader, so that the tier reads a page's bytes only once. The tier verifies headers of pages
   * whose sections are asked for, and nothing else of what it serves: for readers alone that verify
   * all that they get.
   */
  READER
}
