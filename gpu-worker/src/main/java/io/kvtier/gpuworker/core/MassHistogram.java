package io.kvtier.gpuworker.core;

import java.util.Arrays;

/**
 * Attention masses counted by size, so that "the k largest" and "the mass beyond them" cost one
 * pass over the tokens and no sort. Buckets are 16 an octave over 2^-40..1 (a mass within a bucket
 * is known to 1/16 of an octave, 4.4 %); smaller masses share the lowest bucket. One thread.
 */
public final class MassHistogram {
  /** Buckets an octave, as a power of two. */
  static final int SUB_BITS = 4;

  private static final int OCTAVES = 40;
  private static final int SHIFT = 23 - SUB_BITS;
  private static final int LOWEST = (127 - OCTAVES) << SUB_BITS;

  /** Buckets; a larger index is a larger mass. */
  public static final int BUCKETS = (OCTAVES + 1) << SUB_BITS;

  private final int[] counts = new int[BUCKETS];
  private final double[] masses = new double[BUCKETS];

  public void clear() {
    Arrays.fill(counts, 0);
    Arrays.fill(masses, 0);
  }

  /** The bucket of a mass, 0..1. */
  public static int bucketOf(float mass) {
    int bucket = (Float.floatToRawIntBits(mass) >>> SHIFT) - LOWEST;
    return Math.clamp(bucket, 0, BUCKETS - 1);
  }

  /** The smallest mass that {@link #bucketOf} puts into a bucket; +∞ beyond the last. */
  static float lowest(int bucket) {
    if (bucket <= 0) {
      return 0;
    }
    return bucket >= BUCKETS
        ? Float.POSITIVE_INFINITY
        : Float.intBitsToFloat((bucket + LOWEST) << SHIFT);
  }

  public void add(float mass) {
    int bucket = bucketOf(mass);
    counts[bucket]++;
    masses[bucket] += mass;
  }

  int count(int bucket) {
    return counts[bucket];
  }

  double mass(int bucket) {
    return masses[bucket];
  }

  /** The mass beyond the k largest; within a bucket masses count as equal. */
  public double massBeyond(int k) {
    int left = k;
    double beyond = 0;
    for (int bucket = BUCKETS - 1; bucket >= 0; bucket--) {
      int count = counts[bucket];
      if (count == 0) {
        continue;
      }
      int taken = Math.min(left, count);
      left -= taken;
      beyond += masses[bucket] * (count - taken) / count;
    }
    return beyond;
  }
}
