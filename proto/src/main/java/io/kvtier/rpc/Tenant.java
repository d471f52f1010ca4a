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
import java.util.regex.Pattern;

/** Who a call is made for: a metadata entry, taken on the server's side by its interceptor. */
public final class Tenant implements ServerInterceptor {
  /** The tenant of calls that name none. */
  public static final String DEFAULT = "default";

  private static final Metadata.Key<String> METADATA =
      Metadata.Key.of("kvtier-tenant", Metadata.ASCII_STRING_MARSHALLER);

  private static final Context.Key<String> OF_CALL =
      Context.keyWithDefault("kvtier-tenant", DEFAULT);

  private static final Pattern FORM = Pattern.compile("[A-Za-z0-9._-]{1,64}");

  /**
   * Checks a tenant's name.
   *
   * @throws KvtierException INVALID
   */
  public static void require(String tenant) {
    if (!FORM.matcher(tenant).matches()) {
      throw KvtierException.invalid(
          "tenant is '%s'; it must be 1..64 characters of A-Z a-z 0-9 . _ -", tenant);
    }
  }

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
      require(tenant);
    } catch (KvtierException e) {
      call.close(Statuses.toStatus(e).getStatus(), new Metadata());
      return new ServerCall.Listener<>() {};
    }
    return Contexts.interceptCall(
        Context.current().withValue(OF_CALL, tenant), call, headers, next);
  }
}
