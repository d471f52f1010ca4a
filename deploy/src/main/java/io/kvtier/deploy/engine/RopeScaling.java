package io.kvtier.deploy.engine;

/** How a model stretches its rotary frequencies beyond the length it was first trained on. */
public sealed interface RopeScaling {

  /** Frequencies as theta gives them. */
  record None() implements RopeScaling {}

  /** Every frequency divided by a factor (Chen et al., arXiv 2306.15595). */
  record Linear(double factor) implements RopeScaling {
    public Linear {
      checkFactor(factor);
    }
  }

  /**
   * Llama 3.1's scaling: long wavelengths divided by a factor, short ones kept, those between
   * blended.
   *
   * @param lowFreqFactor wavelengths above originalPositions / lowFreqFactor are divided
   * @param highFreqFactor wavelengths below originalPositions / highFreqFactor are kept
   */
  record Llama3(double factor, double lowFreqFactor, double highFreqFactor, int originalPositions)
      implements RopeScaling {
    public Llama3 {
      checkFactor(factor);
      if (!(lowFreqFactor > 0 && highFreqFactor > lowFreqFactor && highFreqFactor < 1e6)) {
        throw new ModelFormatException(
            "rope_scaling: low_freq_factor "
                + lowFreqFactor
                + " and high_freq_factor "
                + highFreqFactor
                + " must satisfy 0 < low < high; take them from the model's own config.json");
      }
      if (originalPositions < 1) {
        throw new ModelFormatException(
            "rope_scaling: original_max_position_embeddings is "
                + originalPositions
                + ", must be at least 1; take it from the model's own config.json");
      }
    }
  }

  private static void checkFactor(double factor) {
    if (!(factor >= 1 && factor <= 4096)) {
      throw new ModelFormatException(
          "rope_scaling: factor is "
              + factor
              + ", must be within 1 to 4096; take it from the model's own config.json");
    }
  }
}
