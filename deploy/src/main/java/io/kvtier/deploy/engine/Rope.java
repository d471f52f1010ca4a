package io.kvtier.deploy.engine;

/**
 * Rotary position embedding (Su et al., arXiv 2104.09864) in Hugging Face's rotate_half layout:
 * dimension i turns with dimension i + headDim / 2.
 *
 * <p>Frequencies and angles are rounded to fp32 as Hugging Face rounds them: at position 32,768 an
 * angle's last bit is .004 rad, so higher precision here would be a difference, not a gain.
 */
final class Rope {
  private final int half;
  private final float[] frequencies;

  Rope(LlamaConfig config) {
    half = config.headDim() / 2;
    frequencies = new float[half];
    for (int i = 0; i < half; i++) {
      float exponent = 2f * i / config.headDim();
      frequencies[i] =
          scaled((float) (1 / Math.pow(config.ropeTheta(), exponent)), config.ropeScaling());
    }
  }

  private static float scaled(float frequency, RopeScaling scaling) {
    return switch (scaling) {
      case RopeScaling.None _ -> frequency;
      case RopeScaling.Linear linear -> (float) (frequency / linear.factor());
      case RopeScaling.Llama3 llama -> {
        double wavelength = 2 * Math.PI / frequency;
        double turns = llama.originalPositions() / wavelength;
        if (turns < llama.lowFreqFactor()) {
          yield (float) (frequency / llama.factor());
        }
        if (turns > llama.highFreqFactor()) {
          yield frequency;
        }
        double smooth =
            (turns - llama.lowFreqFactor()) / (llama.highFreqFactor() - llama.lowFreqFactor());
        yield (float) ((1 - smooth) * frequency / llama.factor() + smooth * frequency);
      }
    };
  }

  /**
   * Fills cosines and sines, each {@code [tokens][headDim / 2]}, for positions from {@code
   * position}.
   */
  void table(int position, int tokens, float[] cosines, float[] sines) {
    for (int token = 0; token < tokens; token++) {
      for (int i = 0; i < half; i++) {
        float angle = (position + token) * frequencies[i];
        cosines[token * half + i] = (float) Math.cos(angle);
        sines[token * half + i] = (float) Math.sin(angle);
      }
    }
  }

  /** Turns tokens {@code from} to {@code to - 1} of {@code x [tokens][heads][headDim]} in place. */
  void rotate(float[] x, int heads, int from, int to, float[] cosines, float[] sines) {
    for (int token = from; token < to; token++) {
      for (int head = 0; head < heads; head++) {
        int at = (token * heads + head) * 2 * half;
        for (int i = 0; i < half; i++) {
          float cosine = cosines[token * half + i];
          float sine = sines[token * half + i];
          float low = x[at + i];
          float high = x[at + half + i];
          x[at + i] = low * cosine - high * sine;
          x[at + half + i] = high * cosine + low * sine;
        }
      }
    }
  }
}
