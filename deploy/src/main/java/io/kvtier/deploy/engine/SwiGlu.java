package io.kvtier.deploy.engine;

import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.VectorOperators;
import jdk.incubator.vector.VectorSpecies;

/** The gated unit of Llama's MLP: gate * sigmoid(gate) * up (Shazeer, arXiv 2002.05202). */
final class SwiGlu {
  private static final VectorSpecies<Float> SPECIES = PanelKernel.SPECIES;

  private SwiGlu() {}

  /** Overwrites elements {@code from} to {@code to - 1} of {@code gate} with the unit's output. */
  static void apply(float[] gate, float[] up, int from, int to) {
    int i = from;
    for (; i + SPECIES.length() <= to; i += SPECIES.length()) {
      FloatVector g = FloatVector.fromArray(SPECIES, gate, i);
      FloatVector u = FloatVector.fromArray(SPECIES, up, i);
      g.mul(u).div(g.neg().lanewise(VectorOperators.EXP).add(1f)).intoArray(gate, i);
    }
    for (; i < to; i++) {
      gate[i] = (float) (gate[i] * up[i] / (1 + Math.exp(-gate[i])));
    }
  }
}
