package io.kvtier.coordinator;

import io.grpc.stub.StreamObserver;
import io.kvtier.rpc.Endpoint;
import io.kvtier.rpc.EndpointConfig;
import io.kvtier.v1.PagesGrpc.PagesImplBase;
import io.kvtier.v1.WatchRequest;
import io.kvtier.v1.WatchResponse;
import io.micrometer.prometheusmetrics.PrometheusConfig;
import io.micrometer.prometheusmetrics.PrometheusMeterRegistry;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;

/** A tier that has no page, and tells so whoever watches it. */
final class LoopbackTier extends PagesImplBase implements AutoCloseable {
  private static final long WATCHED_SECONDS_MAX = 20;

  private final CompletableFuture<StreamObserver<WatchResponse>> watcher =
      new CompletableFuture<>();
  private final Endpoint endpoint;

  LoopbackTier() {
    endpoint =
        Endpoint.start(
            EndpointConfig.loopback(),
            List.of(this),
            new PrometheusMeterRegistry(PrometheusConfig.DEFAULT),
            Executors.newVirtualThreadPerTaskExecutor());
  }

  String target() {
    return endpoint.target();
  }

  @Override
  public void watch(WatchRequest request, StreamObserver<WatchResponse> observer) {
    observer.onNext(
        WatchResponse.newBuilder()
            .setInstance(1)
            .setSnapshot(true)
            .setSnapshotBegins(true)
            .setSnapshotEnds(true)
            .build());
    boolean _ = watcher.complete(observer);
  }

  /** Ends, once it has been watched. */
  void endWatched() throws Exception {
    watcher.get(WATCHED_SECONDS_MAX, TimeUnit.SECONDS).onCompleted();
    endpoint.close();
  }

  @Override
  public void close() {
    endpoint.close();
  }
}
