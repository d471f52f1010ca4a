package io.kvtier.cachetier.grpc;

import io.grpc.Attributes;
import io.grpc.Context;
import io.grpc.Contexts;
import io.grpc.Grpc;
import io.grpc.Metadata;
import io.grpc.ServerCall;
import io.grpc.ServerCallHandler;
import io.grpc.ServerInterceptor;
import java.net.InetSocketAddress;
import java.net.SocketAddress;
import org.jspecify.annotations.Nullable;

/** Tells of each call whether it has come from this host. */
public final class Callers implements ServerInterceptor {
  private static final Context.Key<Boolean> NEAR = Context.keyWithDefault("kvtier-near", false);

  /** Whether the call that the calling thread begins has come from this host. */
  static boolean near() {
    return NEAR.get();
  }

  @Override
  public <Q, R> ServerCall.Listener<Q> interceptCall(
      ServerCall<Q, R> call, Metadata headers, ServerCallHandler<Q, R> next) {
    Attributes attributes = call.getAttributes();
    boolean near =
        near(
            attributes.get(Grpc.TRANSPORT_ATTR_REMOTE_ADDR),
            attributes.get(Grpc.TRANSPORT_ATTR_LOCAL_ADDR));
    return near
        ? Contexts.interceptCall(Context.current().withValue(NEAR, true), call, headers, next)
        : next.startCall(call, headers);
  }

  /** A socket of this host has no address of a network, or ours. */
  private static boolean near(@Nullable SocketAddress remote, @Nullable SocketAddress local) {
    if (!(remote instanceof InetSocketAddress inet)) {
      return remote != null;
    }
    return inet.getAddress().isLoopbackAddress()
        || (local instanceof InetSocketAddress ours && inet.getAddress().equals(ours.getAddress()));
  }
}
