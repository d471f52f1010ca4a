package io.kvtier.rpc;

import io.grpc.ClientInterceptor;
import io.grpc.Context;
import io.grpc.Contexts;
import io.grpc.Metadata;
import io.grpc.ServerCall;
import io.grpc.ServerCallHandler;
import io.grpc.ServerInterceptor;
import io.grpc.stub.MetadataUtils;
import io.kvtier.KvtierException;
import io.kvtier.TenantName;

/** Who a call is made for: a metadata entry, taken on the server's side by its interceptor. */
public final class Tenant implements ServerInterceptor {
  /** The entry that names the tenant. */
  public static final Metadata.Key<String> METADATA =
      Metadata.Key.of("kvtier-tenant", Metadata.ASCII_STRING_MARSHALLER);

  private static final Context.Key<String> OF_CALL =
      Context.keyWithDefault("kvtier-tenant", TenantName.DEFAULT);

  /** The tenant of the call that the calling thread begins. */
  public static String current() {
    return OF_CALL.get();
  }

  /** Names a tenant in every call. */
  public static ClientInterceptor attach(String tenant) {
    Metadata headers = new Metadata();
    headers.put(METADATA, tenant);
    return MetadataUtils.newAttachHeadersInterceptor(headers);
  }

  @Override
  public <Q, R> ServerCall.Listener<Q> interceptCall(
      ServerCall<Q, R> call, Metadata headers, ServerCallHandler<Q, R> next) {
    String tenant = headers.get(METADATA);
    if (tenant == null) {
      return next.startCall(call, headers);
    }
    try {
      var _ = TenantName.require(tenant);
    } catch (KvtierException e) {
      call.close(Statuses.toStatus(e).getStatus(), new Metadata());
      return new ServerCall.Listener<>() {};
    }
    return Contexts.interceptCall(
        Context.current().withValue(OF_CALL, tenant), call, headers, next);
  }
}
