package io.kvtier.coordinator;

import io.grpc.Status;
import io.grpc.stub.StreamObserver;
import io.kvtier.rpc.Endpoint;
import io.kvtier.rpc.EndpointConfig;
import io.kvtier.v1.AttachRequest;
import io.kvtier.v1.AttachResponse;
import io.kvtier.v1.AttentionGrpc.AttentionImplBase;
import io.kvtier.v1.DetachRequest;
import io.kvtier.v1.DetachResponse;
import io.micrometer.prometheusmetrics.PrometheusConfig;
import io.micrometer.prometheusmetrics.PrometheusMeterRegistry;
import java.util.List;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.Executors;
import java.util.concurrent.LinkedBlockingQueue;
import org.jspecify.annotations.Nullable;

/** A worker that takes sessions in and frees them, and does nothing else. */
final class LoopbackWorker extends AttentionImplBase implements AutoCloseable {
  /** How a worker answers an Attach. */
  enum Mode {
    ACCEPT,
    /** Accepts, but the answer never comes. */
    SILENT
  }

  final Map<String, AttachRequest> attached = new ConcurrentHashMap<>();
  final BlockingQueue<String> detached = new LinkedBlockingQueue<>();
  final List<DetachRequest> detaches = new CopyOnWriteArrayList<>();
  volatile Mode mode = Mode.ACCEPT;
  volatile List<Integer> layerTokens = List.of();
  volatile int sharedTokens;
  volatile @Nullable Status refusal;
  private final Endpoint endpoint;
  private final String target;

  LoopbackWorker() {
    this(0);
  }

  LoopbackWorker(int port) {
    endpoint =
        Endpoint.start(
            new EndpointConfig(EndpointConfig.LOOPBACK, port, 0),
            List.of(this),
            new PrometheusMeterRegistry(PrometheusConfig.DEFAULT),
            Executors.newVirtualThreadPerTaskExecutor());
    target = endpoint.target();
  }

  String target() {
    return target;
  }

  int port() {
    return Integer.parseInt(target().substring(target().lastIndexOf(':') + 1));
  }

  @Override
  public void attach(AttachRequest request, StreamObserver<AttachResponse> observer) {
    Status status = refusal;
    if (status != null) {
      throw status.asRuntimeException();
    }
    AttachRequest here = attached.get(request.getSession().getSessionId());
    if (here != null && here.getSession().getEpoch() >= request.getSession().getEpoch()) {
      throw Status.FAILED_PRECONDITION.withDescription("not a newer epoch").asRuntimeException();
    }
    attached.put(request.getSession().getSessionId(), request);
    if (mode == Mode.ACCEPT) {
      AttachResponse.Builder response = AttachResponse.newBuilder();
      if (request.getResume()) {
        response.addAllLayerTokens(layerTokens);
      }
      if (!request.getForkOf().isEmpty()) {
        response.setSharedTokens(sharedTokens);
      }
      observer.onNext(response.build());
      observer.onCompleted();
    }
  }

  @Override
  public void detach(DetachRequest request, StreamObserver<DetachResponse> observer) {
    attached.computeIfPresent(
        request.getSessionId(),
        (_, here) ->
            request.getEpoch() != 0 && here.getSession().getEpoch() > request.getEpoch()
                ? here
                : null);
    detaches.add(request);
    detached.add(request.getSessionId());
    observer.onNext(DetachResponse.getDefaultInstance());
    observer.onCompleted();
  }

  @Override
  public void close() {
    endpoint.close();
  }
}
