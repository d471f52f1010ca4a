package io.kvtier.gpuworker.session;

import java.util.Arrays;

/**
 * The step that a session served last: sent again, since its answer was lost, it is answered alike.
 */
record ServedStep(TokenStep step, StepResult result) {
  /** Whether a step is this one, to the bit. */
  boolean is(TokenStep other) {
    return step.layer() == other.layer()
        && step.position() == other.position()
        && step.tokens() == other.tokens()
        && Arrays.equals(step.parents(), other.parents())
        && Arrays.equals(step.accepted(), other.accepted())
        && Arrays.equals(step.keys(), other.keys())
        && Arrays.equals(step.values(), other.values())
        && Arrays.equals(step.queries(), other.queries());
  }
}
