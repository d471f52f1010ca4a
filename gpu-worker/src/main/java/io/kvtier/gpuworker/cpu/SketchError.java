package io.kvtier.gpuworker.cpu;

/**
 * How wrong a sketch score is. A rotated key's elements are near to normal, and a plane or two tell
 * which interval each lies in; what is left of an element's variance within its interval, times the
 * query's square norm and the token's scale, is the variance of the score's error. Left out, masses
 * taken from a sketch are too small against those of exact tokens: by e^(variance / 2).
 */
public final class SketchError {
  /** 1 - 2 / π: what a sign leaves of a normal variable's variance. */
  private static final float ONE_PLANE = .3634f;

  /** What the intervals 0..1.12 and 1.12..∞ on both sides leave. */
  private static final float TWO_PLANES = .1213f;

  private SketchError() {}

  /**
   * Where errors are large, a sum over some thousand tokens stays far below its expectation, which
   * rests on errors that are too rare to occur among them; a correction beyond this would be taken
   * for real attention.
   */
  public static final float RAISE_MAX = 2;

  /**
   * What to add to a page's scores, so that e^score is right on average.
   *
   * @param variance of a token of scale 1
   * @param squareScale the page's mean square scale
   */
  public static float raise(float variance, float squareScale) {
    return Math.min(RAISE_MAX, variance * squareScale / 2);
  }

  /** Variance of an element of unit variance once so many planes are known. */
  public static float variance(int planes) {
    return planes == 1 ? ONE_PLANE : TWO_PLANES;
  }
}
