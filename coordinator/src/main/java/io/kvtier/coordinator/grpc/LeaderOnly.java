package io.kvtier.coordinator.grpc;

import io.grpc.ForwardingServerCall.SimpleForwardingServerCall;
import io.grpc.Metadata;
import io.grpc.ServerCall;
import io.grpc.ServerCallHandler;
import io.grpc.ServerInterceptor;
import io.grpc.Status;
import io.kvtier.KvtierException;
import io.kvtier.coordinator.lead.Lead;
import io.kvtier.coordinator.log.Leadership;
import io.kvtier.rpc.LeaderTrailer;
import io.kvtier.rpc.Statuses;

/**
 * Refuses calls where this coordinator does not lead, and names the one that does beside every
 * UNAVAILABLE, so that callers can tell a coordinator's answer from a connection's.
 */
public final class LeaderOnly implements ServerInterceptor {
  private final Lead lead;

  public LeaderOnly(Lead lead) {
    this.lead = lead;
  }

  @Override
  public <Q, R> ServerCall.Listener<Q> interceptCall(
      ServerCall<Q, R> call, Metadata headers, ServerCallHandler<Q, R> next) {
    ServerCall<Q, R> naming =
        new SimpleForwardingServerCall<>(call) {
          @Override
          public void close(Status status, Metadata trailers) {
            if (status.getCode() == Status.Code.UNAVAILABLE) {
              Leadership now = lead.leadership();
              LeaderTrailer.put(
                  trailers, now.leads() ? LeaderTrailer.SELF : now.leader().orElse(""));
            }
            super.close(status, trailers);
          }
        };
    try {
      lead.require();
    } catch (KvtierException e) {
      naming.close(Statuses.toStatus(e).getStatus(), new Metadata());
      return new ServerCall.Listener<>() {};
    }
    return next.startCall(naming, headers);
  }
}
