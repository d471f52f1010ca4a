package io.kvtier.cachetier.cache;

import static io.kvtier.KvtierException.requireInRange;

import io.kvtier.page.PageKey;
import io.kvtier.page.Pages;
import io.kvtier.page.Pages.Flaw;
import java.util.Collections;
import java.util.Iterator;
import java.util.concurrent.atomic.LongAdder;

/**
 * Verifies all pages over and over at a bounded rate, and removes those that are flawed. {@link
 * #step} belongs to one thread; the counts to any.
 */
public final class Scrub {
  private static final double NS_PER_SECOND = 1e9;

  private final PageCache cache;
  private final double bytesPerSecond;
  private final LongAdder pages = new LongAdder();
  private final LongAdder bytes = new LongAdder();
  private final LongAdder flawed = new LongAdder();
  private final LongAdder rounds = new LongAdder();
  private Iterator<PageKey> keys = Collections.emptyIterator();
  private long lastNs;
  private double allowance;

  /**
   * @param bytesPerSecond bytes of pages to verify in a second on average, 1..2^40
   * @param nowNs from when on
   */
  public Scrub(PageCache cache, long bytesPerSecond, long nowNs) {
    requireInRange("scrub bytes per second", bytesPerSecond, 1, 1L << 40);
    this.cache = cache;
    this.bytesPerSecond = (double) bytesPerSecond;
    this.lastNs = nowNs;
  }

  /**
   * Verifies as many pages as the rate allows since the last call, and at most one more, whose
   * bytes count against the next call. Time beyond a second since the last call is not made up for.
   */
  public void step(long nowNs) {
    double elapsed = Math.min(1, (nowNs - lastNs) / NS_PER_SECOND);
    lastNs = nowNs;
    allowance = Math.min(bytesPerSecond, allowance + elapsed * bytesPerSecond);
    boolean freshRound = false;
    while (allowance > 0) {
      if (keys.hasNext()) {
        allowance -= verify(keys.next());
      } else if (freshRound || cache.pages() == 0) {
        return;
      } else {
        keys = cache.keys();
        freshRound = true;
        rounds.increment();
      }
    }
  }

  /** Returns the length of the page, 0 if it has gone. */
  private int verify(PageKey key) {
    Integer verified =
        cache.peek(
            key,
            (page, offset, length) ->
                Pages.verify(key, page, offset, length) == Flaw.NONE ? length : -length);
    if (verified == null) {
      return 0;
    }
    pages.increment();
    bytes.add(Math.abs(verified));
    if (verified < 0
        && cache.deleteIf(
            key, (page, offset, length) -> Pages.verify(key, page, offset, length) != Flaw.NONE)) {
      flawed.increment();
    }
    return Math.abs(verified);
  }

  /** Pages verified. */
  public long pages() {
    return pages.sum();
  }

  /** Bytes of the pages verified. */
  public long bytes() {
    return bytes.sum();
  }

  /** Pages found flawed and removed. */
  public long flawed() {
    return flawed.sum();
  }

  /** Times that a pass over all pages has begun. */
  public long rounds() {
    return rounds.sum();
  }
}
