package io.kvtier.deploy.engine;

import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.VectorOperators;
import jdk.incubator.vector.VectorSpecies;

/**
 * Root mean square normalisation (Zhang and Sennrich, arXiv 1910.07467): x / sqrt(mean(x^2) + eps)
 * * w.
 */
final class RmsNorm {
  private static final VectorSpecies<Float> SPECIES = PanelKernel.SPECIES;

  private final float[] weights;
  private final double eps;

  RmsNorm(float[] weights, double eps) {
    this.weights = weights;
    this.eps = eps;
  }

  /**
   * Normalises tokens {@code from} to {@code to - 1} of {@code x [tokens][width]} into {@code y}.
   */
  void apply(float[] x, float[] y, int from, int to) {
    for (int token = from; token < to; token++) {
      row(x, y, token * weights.length);
    }
  }

  private void row(float[] x, float[] y, int at) {
    int width = weights.length;
    int whole = SPECIES.loopBound(width);
    FloatVector squares = FloatVector.zero(SPECIES);
    for (int i = 0; i < whole; i += SPECIES.length()) {
      FloatVector v = FloatVector.fromArray(SPECIES, x, at + i);
      squares = v.fma(v, squares);
    }
    float sum = squares.reduceLanes(VectorOperators.ADD);
    for (int i = whole; i < width; i++) {
      sum += x[at + i] * x[at + i];
    }
    float factor = (float) (1 / Math.sqrt(sum / width + eps));
    for (int i = 0; i < width; i++) {
      y[at + i] = x[at + i] * factor * weights[i];
    }
  }
}
