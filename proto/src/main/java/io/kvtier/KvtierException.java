package io.kvtier;

import com.google.errorprone.annotations.FormatMethod;

/**
 * A call that kvtier refuses or cannot serve. The message names the value, its bound and what to
 * do; the code is one of few, so that a caller can decide by it. A refused call has changed
 * nothing.
 */
public final class KvtierException extends RuntimeException {
  private static final long serialVersionUID = 1L;

  /** What kind of refusal it is; each is one gRPC status on the wire. */
  public enum Code {
    /** The caller's mistake: an argument out of its bounds (INVALID_ARGUMENT). */
    INVALID,
    /** No such session, node or page (NOT_FOUND). */
    NOT_FOUND,
    /** It is there already (ALREADY_EXISTS). */
    EXISTS,
    /** Out of order, or fenced by a newer epoch (FAILED_PRECONDITION). */
    PRECONDITION,
    /** Something bounded is full; the message tells what (RESOURCE_EXHAUSTED). */
    EXHAUSTED,
    /** A process does not answer; the call may be sent again (UNAVAILABLE). */
    UNAVAILABLE,
    /** The deadline passed (DEADLINE_EXCEEDED). */
    DEADLINE,
    /** Data that cannot be read again or computed again (DATA_LOSS). */
    LOST,
    /** A fault in kvtier itself (INTERNAL). */
    INTERNAL
  }

  private final Code code;

  public KvtierException(Code code, String message) {
    super(message);
    this.code = code;
  }

  public KvtierException(Code code, String message, Throwable cause) {
    super(message, cause);
    this.code = code;
  }

  public Code code() {
    return code;
  }

  /** An argument out of its bounds. */
  @FormatMethod
  public static KvtierException invalid(String format, Object... args) {
    return new KvtierException(Code.INVALID, String.format(format, args));
  }

  /** A call out of order. */
  @FormatMethod
  public static KvtierException precondition(String format, Object... args) {
    return new KvtierException(Code.PRECONDITION, String.format(format, args));
  }

  /** Checks that {@code value} lies in {@code [min, max]}. */
  public static long requireInRange(String name, long value, long min, long max) {
    if (value < min || value > max) {
      throw invalid("%s is %d; it must be %d..%d", name, value, min, max);
    }
    return value;
  }
}
