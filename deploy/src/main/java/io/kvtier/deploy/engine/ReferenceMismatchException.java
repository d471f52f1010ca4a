package io.kvtier.deploy.engine;

import java.io.Serial;

/**
 * The engine does not reproduce a model's reference logits: the weights or the engine are wrong.
 */
public final class ReferenceMismatchException extends RuntimeException {
  @Serial private static final long serialVersionUID = 1L;

  ReferenceMismatchException(String message) {
    super(message);
  }
}
