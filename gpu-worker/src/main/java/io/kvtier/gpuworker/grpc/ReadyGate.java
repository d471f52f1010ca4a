package io.kvtier.gpuworker.grpc;

import io.grpc.stub.ServerCallStreamObserver;
import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;

/**
 * Lets a sender on a thread of its own wait until the client has taken what was sent before. The
 * handler's thread is the call's serial thread, which gRPC would call back on; so readiness is also
 * asked for at short intervals.
 */
final class ReadyGate {
  private static final long POLL_MS = 5;
  private static final long WAIT_MS_MAX = 30_000;

  private final ServerCallStreamObserver<?> call;
  private final Semaphore ready = new Semaphore(0);

  ReadyGate(ServerCallStreamObserver<?> call) {
    this.call = call;
    call.setOnReadyHandler(ready::release);
  }

  void await() {
    long deadlineNs = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(WAIT_MS_MAX);
    try {
      while (!call.isReady()) {
        if (call.isCancelled() || System.nanoTime() > deadlineNs) {
          throw new KvtierException(Code.UNAVAILABLE, "the client does not read the stream");
        }
        // A release that came early or late only makes the loop ask again.
        var _ = ready.tryAcquire(POLL_MS, TimeUnit.MILLISECONDS);
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new KvtierException(Code.UNAVAILABLE, "interrupted while sending", e);
    }
  }
}
