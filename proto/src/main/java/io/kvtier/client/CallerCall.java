package io.kvtier.client;

import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.rpc.Statuses;
import java.time.Duration;
import java.util.Queue;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.Executor;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.LockSupport;
import java.util.function.Consumer;
import org.jspecify.annotations.Nullable;

/**
 * A call whose messages are read on the thread that waits for them, in the transport's buffers: the
 * transport's thread only hands them over. One thread makes the call, runs it, and closes it. The
 * call has a deadline, so no wait is for ever.
 *
 * @param <Q> a request
 * @param <R> an answer; valid only while its consumer runs
 */
final class CallerCall<Q, R> implements AutoCloseable {
  /** Requests that may wait here for the wire. */
  private static final int QUEUED_BYTES = 1 << 20;

  private final ClientCall<Q, R> call;
  private final String peer;
  private final Consumer<R> consumer;
  private final Mailbox mailbox = new Mailbox();
  private @Nullable Status ended;
  private @Nullable RuntimeException refusal;

  CallerCall(
      Channel channel,
      MethodDescriptor<Q, R> method,
      Duration deadline,
      String peer,
      Consumer<R> consumer) {
    this.peer = peer;
    this.consumer = consumer;
    CallOptions options =
        CallOptions.DEFAULT
            .withDeadlineAfter(deadline.toNanos(), TimeUnit.NANOSECONDS)
            .withExecutor(mailbox)
            .withOnReadyThreshold(QUEUED_BYTES);
    this.call = channel.newCall(method, options);
    call.start(new Listener(), new Metadata());
  }

  /** Lets this many more answers come. */
  void request(int answers) {
    call.request(answers);
  }

  /** Whether a request can be sent without being queued here. */
  boolean isReady() {
    return call.isReady();
  }

  void send(Q message) {
    call.sendMessage(message);
  }

  /** Tells the peer that no request follows. */
  void finish() {
    call.halfClose();
  }

  /** Runs what has come, or waits for something to come and runs it. */
  void turn() {
    mailbox.runOne();
    throwRefusal();
  }

  /** Whether the peer has ended the call well; throws if it ended it otherwise. */
  boolean ended() {
    throwRefusal();
    Status status = ended;
    if (status == null) {
      return false;
    }
    if (!status.isOk()) {
      throw Statuses.fromStatus(status.asRuntimeException(), peer);
    }
    return true;
  }

  /** The refusal of a peer that ended the call well but early. */
  KvtierException early() {
    return new KvtierException(Code.UNAVAILABLE, peer + " ended the stream before its answers");
  }

  private void throwRefusal() {
    if (Thread.interrupted()) {
      Thread.currentThread().interrupt();
      throw new KvtierException(Code.UNAVAILABLE, "interrupted while waiting for " + peer);
    }
    if (refusal != null) {
      throw refusal;
    }
  }

  /**
   * Ends the call whatever its state; harmless after its end. What has come by then, or comes
   * later, is given back to the transport.
   */
  @Override
  public void close() {
    if (ended == null) {
      call.cancel("given up", null);
    }
    mailbox.leave();
  }

  private final class Listener extends ClientCall.Listener<R> {
    @Override
    public void onMessage(R message) {
      if (refusal != null || mailbox.left) {
        return;
      }
      try {
        consumer.accept(message);
      } catch (RuntimeException e) {
        refusal = e;
      }
    }

    @Override
    public void onClose(Status status, Metadata trailers) {
      ended = status;
    }
  }

  /**
   * Tasks for the one thread that makes the call. Once it has left, whoever brings a task runs it,
   * one at a time since gRPC brings the next only after that.
   */
  private static final class Mailbox implements Executor {
    private final Queue<Runnable> tasks = new ConcurrentLinkedQueue<>();
    private final Thread owner = Thread.currentThread();
    private volatile boolean left;

    @Override
    public void execute(Runnable task) {
      tasks.add(task);
      if (left) {
        runAll();
      } else {
        LockSupport.unpark(owner);
      }
    }

    void runOne() {
      Runnable task = tasks.poll();
      while (task == null && !owner.isInterrupted()) {
        LockSupport.park(this);
        task = tasks.poll();
      }
      if (task != null) {
        task.run();
      }
    }

    void leave() {
      left = true;
      runAll();
    }

    private void runAll() {
      for (Runnable task = tasks.poll(); task != null; task = tasks.poll()) {
        task.run();
      }
    }
  }
}
