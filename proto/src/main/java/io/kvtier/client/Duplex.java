package io.kvtier.client;

import io.grpc.StatusException;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.BlockingClientCall;
import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.rpc.Statuses;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.Queue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import org.jspecify.annotations.Nullable;

/**
 * A stream of requests and responses, read and written by one thread, in which no wait is longer
 * than the time-out. After any refusal the stream is over.
 */
final class Duplex<Q, R> implements AutoCloseable {
  private static final long WRITE_TURN_NS = TimeUnit.MILLISECONDS.toNanos(20);

  /** A stream that is cancelled ends at once; this only bounds the wait. */
  private static final long END_NS_MAX = TimeUnit.SECONDS.toNanos(1);

  private final BlockingClientCall<Q, R> call;
  private final String peer;
  private final Duration timeout;

  /** Answers taken in while a request waited, at most one a request sent. */
  private final Queue<R> kept = new ArrayDeque<>();

  Duplex(BlockingClientCall<Q, R> call, String peer, Duration timeout) {
    this.call = call;
    this.peer = peer;
    this.timeout = timeout;
  }

  /**
   * Sends a request; waits while the peer is not ready to take more. Answers that come meanwhile
   * are taken in and kept: the end of a stream, with its reason, comes behind them, and a peer that
   * has ended the stream is never ready again.
   */
  void write(Q request) {
    long deadlineNs = System.nanoTime() + timeout.toNanos();
    try {
      while (!writeWithin(request, WRITE_TURN_NS)) {
        takeIn();
        if (System.nanoTime() > deadlineNs) {
          throw refused(new TimeoutException());
        }
      }
    } catch (InterruptedException | StatusException | StatusRuntimeException e) {
      throw refused(e);
    }
  }

  /** False if the peer was not ready. */
  private boolean writeWithin(Q request, long waitNs) throws InterruptedException, StatusException {
    boolean sent;
    try {
      sent = call.write(request, waitNs, TimeUnit.NANOSECONDS);
    } catch (TimeoutException notReady) {
      return false;
    }
    if (!sent) {
      // The peer has ended the stream; reading on tells why.
      while (readOrEnd() != null) {}
      throw new KvtierException(Code.UNAVAILABLE, peer + " ended the stream before its answers");
    }
    return true;
  }

  /** Keeps an answer that is there already. */
  private void takeIn() throws InterruptedException, StatusException {
    try {
      R answer = call.read(1, TimeUnit.MILLISECONDS);
      if (answer != null) {
        kept.add(answer);
      }
    } catch (TimeoutException none) {
      // Nothing has come; the caller goes on waiting for room.
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
    R earlier = kept.poll();
    if (earlier != null) {
      return earlier;
    }
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
    end("given up", e);
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
    end("closed by the client", null);
  }

  /**
   * Ends the stream and takes in what has come and was not read: it waits for this thread, in
   * buffers that nobody else would give back.
   */
  private void end(String why, @Nullable Throwable cause) {
    call.cancel(why, cause);
    boolean interrupted = Thread.interrupted();
    try {
      while (call.read(END_NS_MAX, TimeUnit.NANOSECONDS) != null) {}
    } catch (InterruptedException e) {
      interrupted = true;
    } catch (TimeoutException | StatusException | StatusRuntimeException e) {
      // How the stream ended is known, or does not matter.
    }
    if (interrupted) {
      Thread.currentThread().interrupt();
    }
  }
}
