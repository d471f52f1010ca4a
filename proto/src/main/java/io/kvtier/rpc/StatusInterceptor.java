package io.kvtier.rpc;

import com.google.protobuf.MessageLite;
import io.grpc.ForwardingServerCallListener.SimpleForwardingServerCallListener;
import io.grpc.Metadata;
import io.grpc.ServerCall;
import io.grpc.ServerCallHandler;
import io.grpc.ServerInterceptor;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.wire.IncomingBytes;
import java.util.logging.Level;
import java.util.logging.Logger;

/** Ends a call with the mapped status when its handler throws, and logs what is a fault of ours. */
final class StatusInterceptor implements ServerInterceptor {
  private static final Logger LOG = Logger.getLogger(StatusInterceptor.class.getName());

  @Override
  public <Q, R> ServerCall.Listener<Q> interceptCall(
      ServerCall<Q, R> call, Metadata headers, ServerCallHandler<Q, R> next) {
    return new MappingListener<>(call, next.startCall(call, headers));
  }

  private static final class MappingListener<Q> extends SimpleForwardingServerCallListener<Q> {
    private final ServerCall<Q, ?> call;
    private boolean ended;

    MappingListener(ServerCall<Q, ?> call, ServerCall.Listener<Q> delegate) {
      super(delegate);
      this.call = call;
    }

    @Override
    public void onMessage(Q message) {
      run(() -> {
        requireBounded(message);
        super.onMessage(message);
      });
    }

    @Override
    public void onHalfClose() {
      run(super::onHalfClose);
    }

    @Override
    public void onReady() {
      run(super::onReady);
    }

    private static void requireBounded(Object message) {
      int bytes =
          switch (message) {
            case MessageLite wire -> wire.getSerializedSize();
            case IncomingBytes raw -> raw.length();
            default -> 0;
          };
      if (bytes > Endpoint.MESSAGE_BYTES_MAX) {
        throw new KvtierException(
            Code.EXHAUSTED,
            "the message has %d bytes; at most %d are accepted, send smaller ones"
                .formatted(bytes, Endpoint.MESSAGE_BYTES_MAX));
      }
    }

    /** Callbacks of one call come one at a time, so {@code ended} needs no lock. */
    private void run(Runnable callback) {
      if (ended) {
        return;
      }
      try {
        callback.run();
      } catch (RuntimeException e) {
        ended = true;
        StatusRuntimeException mapped = Statuses.toStatus(e);
        if (mapped.getStatus().getCode() == Status.Code.INTERNAL) {
          LOG.log(
              Level.SEVERE,
              "fault while serving " + call.getMethodDescriptor().getFullMethodName(),
              e);
        }
        call.close(mapped.getStatus(), new Metadata());
      }
    }
  }
}
