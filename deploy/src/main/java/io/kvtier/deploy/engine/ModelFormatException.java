package io.kvtier.deploy.engine;

import java.io.Serial;

/** A model directory that is damaged, incomplete or of a kind this engine does not run. */
public final class ModelFormatException extends RuntimeException {
  @Serial private static final long serialVersionUID = 1L;

  public ModelFormatException(String message) {
    super(message);
  }

  public ModelFormatException(String message, Throwable cause) {
    super(message, cause);
  }
}
