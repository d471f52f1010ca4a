package io.kvtier.gpuworker.core;

/**
 * Decides, step by step, whether pages are fetched or attended to where they are, by what either
 * took of late of a step's time, beside its other work: min(round trip + scan, round trip + bytes /
 * bandwidth), each learnt from the steps themselves ({@link LinearCost}). Now and then, and at
 * first more often, both are done, so that neither figure grows old and each partial from elsewhere
 * may be the one that is checked. Where the tier refuses to attend, pages are fetched for a while,
 * longer with each refusal in a row; a wrong partial ends attending near for good. A pure function
 * of what it is told. Safe for any number of threads.
 */
public final class FetchOrAttend {
  /** What is done with a layer's pages in a step. */
  public enum Course {
    FETCH,
    ATTEND,
    /** Both: the fetched pages count, the partial is checked against them. */
    BOTH
  }

  /** Who decides. */
  public enum Rule {
    MEASURED,
    NEVER,
    /** Whatever it takes; checked like any other. */
    ALWAYS
  }

  /** Both are done once in so many decisions. */
  static final int CHECK_EVERY = 128;

  /** Where one takes so many times as long as the other, once in so many times as many. */
  static final int CHECK_RARELY = 8;

  /** An answer that takes so many times as long as either way is expected to is given up. */
  static final int PATIENCE = 8;

  /** Whatever is expected, an answer may take as long: a busy machine holds single steps up. */
  static final long PATIENCE_LEAST_NS = 100_000_000;

  static final int REFUSED_FIRST = 8;
  static final int REFUSED_MOST = 1024;

  // Loopback, or a fast network; what is measured takes over with the first step.
  private static final double ROUND_TRIP_NS = 200_000;
  private static final double FETCH_NS_PER_BYTE = 1 / 1.5;
  private static final double ATTEND_NS_PER_PAGE = 2_000;

  private final LinearCost fetching = new LinearCost(ROUND_TRIP_NS, FETCH_NS_PER_BYTE);
  private final LinearCost attending = new LinearCost(ROUND_TRIP_NS, ATTEND_NS_PER_PAGE);
  private Rule rule = Rule.MEASURED;
  private int sinceCheck;

  /** Decisions from the last check to the next; grows, since first calls find everything cold. */
  private int checkAfter = 1;

  private int refusedFor;
  private int refusals;
  private boolean ended;

  /** Has another rule hold from now on. */
  public synchronized void follow(Rule next) {
    rule = next;
  }

  /**
   * What to do with pages.
   *
   * @param bytes that a fetch would move
   * @param pages (page, KV head) pairs to attend to
   */
  public synchronized Course decide(long bytes, long pages) {
    if (rule == Rule.NEVER || ended || pages == 0) {
      return Course.FETCH;
    }
    if (refusedFor > 0) {
      refusedFor--;
      return Course.FETCH;
    }
    double fetchNs = fetching.expectedNs(bytes);
    double attendNs = attending.expectedNs(pages);
    boolean farApart =
        Math.max(fetchNs, attendNs) > CHECK_RARELY * Math.max(1, Math.min(fetchNs, attendNs));
    sinceCheck++;
    if (!fetching.observed() || !attending.observed() || isCheck(farApart)) {
      sinceCheck = 0;
      return Course.BOTH;
    }
    return rule == Rule.ALWAYS || attendNs < fetchNs ? Course.ATTEND : Course.FETCH;
  }

  private boolean isCheck(boolean farApart) {
    if (rule == Rule.MEASURED && checkAfter < CHECK_EVERY) {
      boolean due = sinceCheck >= checkAfter;
      checkAfter *= due ? 2 : 1;
      return due;
    }
    return sinceCheck >= CHECK_EVERY * (farApart ? CHECK_RARELY : 1);
  }

  /**
   * How long an answer is worth waiting for, in nanoseconds, since pages can be fetched instead.
   *
   * @param bytes that a fetch would move
   * @param pages (page, KV head) pairs to attend to
   */
  public synchronized long patienceNs(long bytes, long pages) {
    double expectedNs = Math.max(fetching.expectedNs(bytes), attending.expectedNs(pages));
    return Math.max(PATIENCE_LEAST_NS, (long) (PATIENCE * expectedNs));
  }

  /** A step took so much longer for fetching so many bytes and attending to them. */
  public synchronized void fetched(long bytes, long ns) {
    fetching.observe(bytes, ns);
  }

  /**
   * The tier attended to so many (page, KV head) pairs, and the step waited so long for the answer
   * once its own work was done.
   */
  public synchronized void attended(long pages, long ns) {
    attending.observe(pages, ns);
    refusals = 0;
  }

  /** The tier would not, or could not, attend to pages. */
  public synchronized void refused() {
    refusedFor = Math.min(REFUSED_MOST, REFUSED_FIRST << Math.min(refusals, 16));
    refusals++;
  }

  /** No more attending near: a partial was wrong, or pages are nowhere attended to. */
  public synchronized void end() {
    ended = true;
  }
}
