package io.kvtier.rpc;

import io.grpc.Metadata;
import io.grpc.Status;
import java.util.Optional;

/**
 * Which coordinator leads: a trailer of every UNAVAILABLE that a coordinator answers. Without it,
 * the status is of the connection.
 */
public final class LeaderTrailer {
  /** The coordinator that answers leads itself: what it says is the cluster's answer. */
  public static final String SELF = "self";

  private static final Metadata.Key<String> LEADER =
      Metadata.Key.of("kvtier-leader", Metadata.ASCII_STRING_MARSHALLER);

  private LeaderTrailer() {}

  /**
   * Names the coordinator that leads.
   *
   * @param leader its gRPC target, or {@link #SELF}; empty if it is not known
   */
  public static void put(Metadata trailers, String leader) {
    trailers.removeAll(LEADER);
    trailers.put(LEADER, leader);
  }

  /** What a coordinator said of who leads: empty if nothing, an empty text if it does not know. */
  public static Optional<String> of(Throwable thrown) {
    Metadata trailers = Status.trailersFromThrowable(thrown);
    return trailers == null ? Optional.empty() : Optional.ofNullable(trailers.get(LEADER));
  }
}
