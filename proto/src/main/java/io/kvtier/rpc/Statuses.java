package io.kvtier.rpc;

import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import java.io.IOException;
import org.jspecify.annotations.Nullable;

/** The one mapping between kvtier's refusals and gRPC's statuses. */
public final class Statuses {
  private static final int DESCRIPTION_MAX = 1024;

  private Statuses() {}

  /**
   * The status to end a call with. Anything but a refusal or a status is a fault of ours: INTERNAL.
   */
  public static StatusRuntimeException toStatus(Throwable thrown) {
    return switch (thrown) {
      case KvtierException e ->
          grpcCode(e.code())
              .toStatus()
              .withDescription(shortened(e.getMessage()))
              .withCause(e)
              .asRuntimeException();
      case StatusRuntimeException e -> e;
      default ->
          Status.INTERNAL
              .withDescription(shortened("a fault in kvtier: " + thrown))
              .withCause(thrown)
              .asRuntimeException();
    };
  }

  /**
   * What a caller makes of a status that came back. {@code peer} names who answered, for the
   * message.
   */
  public static KvtierException fromStatus(Throwable thrown, String peer) {
    if (thrown instanceof KvtierException e) {
      return e;
    }
    Status status = Status.fromThrowable(thrown);
    String description = status.getDescription() == null ? "" : ": " + status.getDescription();
    Code code = isUnavailable(status) ? Code.UNAVAILABLE : kvtierCode(status.getCode());
    String message =
        switch (code) {
          case UNAVAILABLE ->
              peer + " does not answer" + description + "; check that it runs and is reached there";
          case DEADLINE -> peer + " did not answer in time" + description;
          default -> peer + " refused" + description;
        };
    return new KvtierException(code, message, thrown);
  }

  /**
   * Whether nobody answered, or no longer. A call that is made just as its connection breaks ends
   * as UNKNOWN, with the connection's exception, which no peer can send.
   */
  public static boolean isUnavailable(Status status) {
    return status.getCode() == Status.Code.UNAVAILABLE
        || (status.getCode() == Status.Code.UNKNOWN && status.getCause() instanceof IOException);
  }

  /**
   * Descriptions travel in headers, which peers bound; and an echoed argument may be of any length.
   */
  private static @Nullable String shortened(@Nullable String description) {
    return description == null || description.length() <= DESCRIPTION_MAX
        ? description
        : description.substring(0, DESCRIPTION_MAX) + " ...";
  }

  private static Status.Code grpcCode(Code code) {
    return switch (code) {
      case INVALID -> Status.Code.INVALID_ARGUMENT;
      case NOT_FOUND -> Status.Code.NOT_FOUND;
      case EXISTS -> Status.Code.ALREADY_EXISTS;
      case PRECONDITION -> Status.Code.FAILED_PRECONDITION;
      case EXHAUSTED -> Status.Code.RESOURCE_EXHAUSTED;
      case UNAVAILABLE -> Status.Code.UNAVAILABLE;
      case DEADLINE -> Status.Code.DEADLINE_EXCEEDED;
      case LOST -> Status.Code.DATA_LOSS;
      case INTERNAL -> Status.Code.INTERNAL;
    };
  }

  private static Code kvtierCode(Status.Code code) {
    return switch (code) {
      case INVALID_ARGUMENT, OUT_OF_RANGE -> Code.INVALID;
      case NOT_FOUND -> Code.NOT_FOUND;
      case ALREADY_EXISTS -> Code.EXISTS;
      case FAILED_PRECONDITION, ABORTED -> Code.PRECONDITION;
      case RESOURCE_EXHAUSTED -> Code.EXHAUSTED;
      case UNAVAILABLE, CANCELLED -> Code.UNAVAILABLE;
      case DEADLINE_EXCEEDED -> Code.DEADLINE;
      case DATA_LOSS -> Code.LOST;
      case OK, UNKNOWN, PERMISSION_DENIED, UNIMPLEMENTED, INTERNAL, UNAUTHENTICATED ->
          Code.INTERNAL;
    };
  }
}
