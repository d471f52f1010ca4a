package io.kvtier.codec;

import io.kvtier.page.PageLayout;
import java.util.Arrays;

/**
 * The fixed orthogonal transform of the rot codecs: y = H D x, where D is a diagonal of
 * pseudo-random signs and H an orthonormal Hadamard transform, block-diagonal where the head
 * dimension is not a power of two (blocks are the powers of two of its binary form, largest first:
 * 80 = 64 + 16). It spreads a large channel over all dimensions, so that one set of levels fits
 * every coordinate (QuaRot, arXiv 2404.00456; the signs as in randomized Hadamard transforms).
 * Immutable.
 */
public final class Rotation {
  private final int headDim;
  private final float[] signs;

  /** The rotation for a head dimension, a multiple of 16, 16..256. */
  public Rotation(int headDim) {
    PageLayout.requireHeadDim(headDim);
    this.headDim = headDim;
    this.signs = new float[headDim];
    for (int i = 0; i < headDim; i++) {
      signs[i] = (mix64((i + 1) * 0x9E37_79B9_7F4A_7C15L) & 1) == 0 ? 1f : -1f;
    }
  }

  /**
   * The finalizer of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number
   * generators, 2014).
   */
  private static long mix64(long z) {
    z = (z ^ z >>> 30) * 0xBF58_476D_1CE4_E5B9L;
    z = (z ^ z >>> 27) * 0x94D0_49BB_1331_11EBL;
    return z ^ z >>> 31;
  }

  /** The diagonal D: {@code [headDim]}, 1 or -1. */
  float[] signs() {
    return signs.clone();
  }

  /** By dimension: what makes its block of the Hadamard transform orthonormal. */
  float[] norms() {
    float[] norms = new float[headDim];
    for (int begin = 0; begin < headDim; ) {
      int block = Integer.highestOneBit(headDim - begin);
      Arrays.fill(norms, begin, begin + block, norm(block));
      begin += block;
    }
    return norms;
  }

  private static float norm(int block) {
    return (float) (1.0 / Math.sqrt(block));
  }

  /** Rotates {@code x[at .. at + headDim)} in place. */
  public void apply(float[] x, int at) {
    for (int i = 0; i < headDim; i++) {
      x[at + i] *= signs[i];
    }
    hadamard(x, at);
  }

  /** Rotates {@code y[at .. at + headDim)} back in place: H is its own inverse, D too. */
  public void invert(float[] y, int at) {
    hadamard(y, at);
    for (int i = 0; i < headDim; i++) {
      y[at + i] *= signs[i];
    }
  }

  private void hadamard(float[] x, int at) {
    int begin = at;
    for (int left = headDim; left > 0; ) {
      int block = Integer.highestOneBit(left);
      butterflies(x, begin, block);
      begin += block;
      left -= block;
    }
  }

  /** The order of operations is part of the format: encoders must agree to the bit. */
  private static void butterflies(float[] x, int begin, int block) {
    for (int half = 1; half < block; half <<= 1) {
      for (int i = begin; i < begin + block; i += half << 1) {
        for (int j = i; j < i + half; j++) {
          float a = x[j];
          float b = x[j + half];
          x[j] = a + b;
          x[j + half] = a - b;
        }
      }
    }
    float norm = norm(block);
    for (int i = begin; i < begin + block; i++) {
      x[i] *= norm;
    }
  }
}
