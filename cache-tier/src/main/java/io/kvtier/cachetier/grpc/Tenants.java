package io.kvtier.cachetier.grpc;

import io.grpc.Context;
import io.grpc.Contexts;
import io.grpc.Metadata;
import io.grpc.ServerCall;
import io.grpc.ServerCallHandler;
import io.grpc.ServerInterceptor;
import io.kvtier.KvtierException;
import io.kvtier.cachetier.cache.CacheLimits;
import io.kvtier.rpc.Statuses;

/** Takes the tenant of a call from its metadata; a name that is none ends the call. */
public final class Tenants implements ServerInterceptor {
  /** The metadata entry that names the tenant. */
  public static final Metadata.Key<String> METADATA =
      Metadata.Key.of("kvtier-tenant", Metadata.ASCII_STRING_MARSHALLER);

  private static final Context.Key<String> TENANT =
      Context.keyWithDefault("kvtier-tenant", CacheLimits.DEFAULT_TENANT);

  /** The tenant of the call that the calling thread begins. */
  static String current() {
    return TENANT.get();
  }

  @Override
  public <Q, R> ServerCall.Listener<Q> interceptCall(
      ServerCall<Q, R> call, Metadata headers, ServerCallHandler<Q, R> next) {
    String tenant = headers.get(METADATA);
    if (tenant == null) {
      return next.startCall(call, headers);
    }
    try {
      CacheLimits.requireTenant(tenant);
    } catch (KvtierException e) {
      call.close(Statuses.toStatus(e).getStatus(), new Metadata());
      return new ServerCall.Listener<>() {};
    }
    return Contexts.interceptCall(Context.current().withValue(TENANT, tenant), call, headers, next);
  }
}
