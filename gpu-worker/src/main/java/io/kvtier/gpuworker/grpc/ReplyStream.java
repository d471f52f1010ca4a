package io.kvtier.gpuworker.grpc;

import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.ServerCallStreamObserver;
import io.grpc.stub.StreamObserver;
import io.kvtier.KvtierException;
import io.kvtier.rpc.Statuses;
import java.util.logging.Level;
import java.util.logging.Logger;

/**
 * A stream on which each request is answered by one response. The next request is taken only once
 * the response before it could be sent, so a client that does not read cannot make the worker
 * hoard. gRPC calls one method at a time.
 */
abstract class ReplyStream<Q, R> implements StreamObserver<Q> {
  private static final Logger LOG = Logger.getLogger(ReplyStream.class.getName());

  private final ServerCallStreamObserver<R> responses;
  private boolean ended;
  private boolean requestDue;

  ReplyStream(StreamObserver<R> responses) {
    this.responses = (ServerCallStreamObserver<R>) responses;
    this.responses.disableAutoRequest();
    this.responses.setOnReadyHandler(this::requestIfDue);
    this.responses.setOnCancelHandler(() -> ended = true);
    this.responses.request(1);
  }

  /** Serves one request; whatever it throws ends the stream with the mapped status. */
  abstract R serve(Q request);

  /** Whether a request gets no response: the one that opens a stream may be so. */
  boolean isSilent(Q request) {
    return false;
  }

  /** Serves a request that gets no response. */
  void serveSilently(Q request) {}

  @Override
  public void onNext(Q request) {
    if (ended) {
      return;
    }
    try {
      if (isSilent(request)) {
        serveSilently(request);
      } else {
        responses.onNext(serve(request));
      }
    } catch (RuntimeException e) {
      ended = true;
      StatusRuntimeException mapped = Statuses.toStatus(e);
      if (mapped.getStatus().getCode() == Status.Code.INTERNAL) {
        LOG.log(Level.SEVERE, "fault while serving a stream", e);
      }
      responses.onError(mapped);
      return;
    }
    requestDue = true;
    requestIfDue();
  }

  private void requestIfDue() {
    if (requestDue && responses.isReady() && !ended) {
      requestDue = false;
      responses.request(1);
    }
  }

  @Override
  public void onError(Throwable cancelled) {
    ended = true;
  }

  @Override
  public void onCompleted() {
    if (!ended) {
      ended = true;
      responses.onCompleted();
    }
  }

  static KvtierException openFirst() {
    return KvtierException.precondition("the first message of a stream must be 'open'");
  }

  static KvtierException openOnce() {
    return KvtierException.precondition("'open' came twice; it is the first message alone");
  }

  static KvtierException partMissing() {
    return KvtierException.invalid("the message has no part; set exactly one");
  }
}
