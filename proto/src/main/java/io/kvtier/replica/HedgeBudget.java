package io.kvtier.replica;

/**
 * Bounds the load that hedging adds: a share of the pages asked, saved up to a burst. Safe for any
 * number of threads.
 */
public final class HedgeBudget {
  /** Most hedges that can be saved up, in pages. */
  private static final int BURST = 256;

  private final int percent;
  private long hundredths;

  public HedgeBudget(int percent) {
    this.percent = percent;
  }

  /** So many pages have been asked. */
  synchronized void asked(int pages) {
    hundredths = Math.min(BURST * 100L, hundredths + (long) pages * percent);
  }

  /** Takes leave to hedge up to so many pages; returns how many may be. */
  synchronized int take(int pages) {
    int granted = (int) Math.min(pages, hundredths / 100);
    hundredths -= granted * 100L;
    return granted;
  }
}
