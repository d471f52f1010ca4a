package io.kvtier.coordinator.lead;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import java.util.function.BooleanSupplier;

/**
 * Who a call is served for.
 *
 * @param tenant whose prompts, pins and requests it sees
 * @param gone whether it has left and waits for no answer any more
 */
public record Caller(String tenant, BooleanSupplier gone) {
  /** A request's id as it is kept: ids of tenants are told apart; empty stays empty. */
  String requestId(String id) {
    return id.isEmpty() ? "" : tenant + "/" + id;
  }

  void requireThere() {
    if (gone.getAsBoolean()) {
      throw new KvtierException(Code.UNAVAILABLE, "the caller left before the session was open");
    }
  }
}
