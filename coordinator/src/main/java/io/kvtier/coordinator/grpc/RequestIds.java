package io.kvtier.coordinator.grpc;

import io.kvtier.rpc.Tenant;

/** Requests are told apart by their id, and by the tenant that they are made for. */
final class RequestIds {
  private RequestIds() {}

  /** An id as it is kept; empty stays empty. */
  static String ofTenant(String requestId) {
    return requestId.isEmpty() ? "" : Tenant.current() + "/" + requestId;
  }
}
