package io.kvtier.deploy.cases;

import java.io.Serial;
import org.jspecify.annotations.Nullable;

/** A file of cases that cannot be used; the message names file, line and field. */
public final class CaseFormatException extends RuntimeException {
  @Serial private static final long serialVersionUID = 1L;

  CaseFormatException(String message, @Nullable Throwable cause) {
    super(message, cause);
  }
}
