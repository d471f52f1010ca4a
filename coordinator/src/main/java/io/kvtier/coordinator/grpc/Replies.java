package io.kvtier.coordinator.grpc;

import io.grpc.stub.StreamObserver;
import io.kvtier.KvtierException;
import io.kvtier.coordinator.metrics.CoordinatorMeters;
import java.util.function.Supplier;

/**
 * Answers unary calls and counts the refused ones; the endpoint maps what is thrown to a status.
 */
record Replies(CoordinatorMeters meters) {
  <R> void answer(StreamObserver<R> observer, Supplier<R> call) {
    R response;
    try {
      response = call.get();
    } catch (KvtierException e) {
      meters.refused(e.code());
      throw e;
    }
    observer.onNext(response);
    observer.onCompleted();
  }
}
