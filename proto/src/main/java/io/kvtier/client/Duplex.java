package io.kvtier.client;

import io.grpc.StatusException;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.BlockingClientCall;
import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.rpc.Statuses;
import java.time.Duration;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import org.jspecify.annotations.Nullable;

/**
 * A stream of requests and responses, read and written by one thread, in which no wait is longer
 * than the time-out. After any refusal the stream is over.
 */
final class Duplex<Q, R> implements AutoCloseable {
  private final BlockingClientCall<Q, R> call;
  private final String peer;
  private final Duration timeout;

  Duplex(BlockingClientCall<Q, R> call, String peer, Duration timeout) {
    this.call = call;
    this.peer = peer;
    this.timeout = timeout;
  }

  /** Sends a request; waits while the peer is not ready to take more. */
  void write(Q request) {
    boolean sent;
    try {
      sent = call.write(request, timeout.toNanos(), TimeUnit.NANOSECONDS);
    } catch (InterruptedException | TimeoutException | StatusException | StatusRuntimeException e) {
      throw refused(e);
    }
    if (!sent) {
      // The peer has ended the stream; reading on tells why.
      while (readOrEnd() != null) {}
      throw new KvtierException(Code.UNAVAILABLE, peer + " ended the stream before its answers");
    }
  }

  /** The next response. */
  R read() {
    R response = readOrEnd();
    if (response == null) {
      throw new KvtierException(Code.UNAVAILABLE, peer + " ended the stream before its answers");
    }
    return response;
  }

  /** The next response, or null at the end of the stream. */
  @Nullable R readOrEnd() {
    try {
      return call.read(timeout.toNanos(), TimeUnit.NANOSECONDS);
    } catch (InterruptedException | TimeoutException | StatusException | StatusRuntimeException e) {
      throw refused(e);
    }
  }

  /** Tells the peer that no request follows. */
  void finish() {
    call.halfClose();
  }

  private KvtierException refused(Exception e) {
    call.cancel("given up", e);
    return switch (e) {
      case InterruptedException interrupted -> {
        Thread.currentThread().interrupt();
        yield new KvtierException(
            Code.UNAVAILABLE, "interrupted while waiting for " + peer, interrupted);
      }
      case TimeoutException late ->
          new KvtierException(Code.DEADLINE, peer + " did not answer within " + timeout, late);
      default -> Statuses.fromStatus(e, peer);
    };
  }

  /** Ends the stream whatever its state; harmless after its end. */
  @Override
  public void close() {
    call.cancel("closed by the client", null);
  }
}
