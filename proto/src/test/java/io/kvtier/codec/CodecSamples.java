package io.kvtier.codec;

import static io.kvtier.page.PageLayout.TOKENS;

import java.util.SplittableRandom;

/** Rows that codecs are tried on: {@code [64][headDim]}, all within the format's bounds. */
enum CodecSamples {
  GAUSSIAN {
    @Override
    float element(SplittableRandom random, int token, int dimension) {
      return (float) random.nextGaussian();
    }
  },
  ZEROS {
    @Override
    float element(SplittableRandom random, int token, int dimension) {
      return dimension % 2 == 0 ? 0f : -0f;
    }
  },
  /** All tokens alike: nothing is left once the mean is subtracted. */
  CONSTANT {
    @Override
    float element(SplittableRandom random, int token, int dimension) {
      return dimension * .37f - 3;
    }
  },
  /** One channel at the bound, of both signs. */
  HUGE_CHANNEL {
    @Override
    float element(SplittableRandom random, int token, int dimension) {
      float small = (float) random.nextGaussian();
      return dimension == 9 ? (token % 3 == 0 ? -4096 : 4096) : small;
    }
  },
  DENORMALS {
    @Override
    float element(SplittableRandom random, int token, int dimension) {
      return Float.intBitsToFloat(random.nextInt(1 << 23) | (random.nextInt() & Integer.MIN_VALUE));
    }
  },
  /** Small and large tokens, and a token of zeros, in one page. */
  MIXED_SCALES {
    @Override
    float element(SplittableRandom random, int token, int dimension) {
      float gaussian = (float) random.nextGaussian();
      return token % 5 == 4 ? 0 : gaussian * (float) Math.pow(10, token % 7 - 4);
    }
  },
  /** Few distinct elements, so that many coordinates fall on thresholds and many steps on ties. */
  STEPS {
    @Override
    float element(SplittableRandom random, int token, int dimension) {
      return (random.nextInt(9) - 4) / 2f;
    }
  };

  abstract float element(SplittableRandom random, int token, int dimension);

  float[] rows(long seed, int headDim) {
    SplittableRandom random = new SplittableRandom(seed);
    float[] rows = new float[TOKENS * headDim];
    for (int i = 0; i < rows.length; i++) {
      rows[i] = element(random, i / headDim, i % headDim);
    }
    return rows;
  }
}
