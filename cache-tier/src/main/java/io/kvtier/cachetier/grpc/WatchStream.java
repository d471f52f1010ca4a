package io.kvtier.cachetier.grpc;

import io.grpc.StatusRuntimeException;
import io.grpc.stub.ServerCallStreamObserver;
import io.kvtier.cachetier.cache.PageCache;
import io.kvtier.cachetier.watch.EventLog;
import io.kvtier.cachetier.watch.PageEvent;
import io.kvtier.page.PageKey;
import io.kvtier.rpc.Statuses;
import io.kvtier.v1.PageChange;
import io.kvtier.v1.WatchRequest;
import io.kvtier.v1.WatchResponse;
import java.util.Iterator;
import java.util.List;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import org.jspecify.annotations.Nullable;

/**
 * One Watch call. Sends only while the client takes what was sent before; meanwhile events wait in
 * the log, and when the log has forgotten one of them the call ends. All but {@link #begin} and
 * {@link #wake} runs on the watchers' thread.
 */
final class WatchStream {
  private static final int KEYS_PER_MESSAGE = 1024;
  private static final int BUFFERED_BYTES = 1 << 16;

  /**
   * Least time from one message of events to the next. A message costs both ends some 50 µs of a
   * processor however few its events, and pages are stored one by one while a prompt comes in.
   */
  static final long GATHER_NS = TimeUnit.MILLISECONDS.toNanos(20);

  private final ServerCallStreamObserver<WatchResponse> out;
  private final EventLog events;
  private final ScheduledExecutorService thread;
  private final AtomicBoolean awake = new AtomicBoolean();
  private final Runnable wake = this::wake;
  private Runnable forget = () -> {};
  private long sequence;

  /** When the last message was sent; far enough back that the first is not held up. */
  private volatile long sentNs = System.nanoTime() - GATHER_NS;

  private @Nullable Iterator<PageKey> snapshot;
  private boolean begins;
  private boolean ended;

  WatchStream(
      WatchRequest request,
      ServerCallStreamObserver<WatchResponse> out,
      PageCache cache,
      ScheduledExecutorService thread) {
    this.out = out;
    this.events = cache.events();
    this.thread = thread;
    if (request.getInstance() == events.instance() && events.reachesBack(request.getSequence())) {
      sequence = request.getSequence();
    } else {
      // The number first: what changes from here on comes as an event too.
      sequence = events.last();
      snapshot = cache.keys();
      begins = true;
    }
  }

  /** Starts to send. {@code forget} is called once when the call has ended. */
  void begin(Runnable forgetStream) {
    this.forget = forgetStream;
    out.setOnReadyThreshold(BUFFERED_BYTES);
    out.setOnReadyHandler(() -> run(this::send, 0));
    out.setOnCancelHandler(() -> run(this::gone, 0));
    events.addListener(wake);
    wake();
  }

  /**
   * Has the thread send what there is to send, once for any number of calls before it does: at once
   * after a quiet time, else when what comes meanwhile has been gathered.
   */
  private void wake() {
    if (awake.compareAndSet(false, true)) {
      run(this::send, GATHER_NS - (System.nanoTime() - sentNs));
    }
  }

  private void run(Runnable task, long delayNs) {
    try {
      var _ = thread.schedule(task, delayNs, TimeUnit.NANOSECONDS);
    } catch (RejectedExecutionException e) {
      // The tier is stopping: the thread's last tasks end all streams.
      events.removeListener(wake);
    }
  }

  private void send() {
    awake.set(false);
    try {
      while (!ended && out.isReady() && sendNext()) {}
    } catch (RuntimeException e) {
      // A fault ends the call too: a stream that stays silent holds a watcher's place.
      finish(Statuses.toStatus(e));
    }
  }

  /** Sends a message; false if there is nothing to send. */
  private boolean sendNext() {
    WatchResponse.Builder message = WatchResponse.newBuilder().setInstance(events.instance());
    if (snapshot != null) {
      addKeys(message, snapshot);
    } else if (!addChanges(message)) {
      return false;
    }
    out.onNext(message.setSequence(sequence).build());
    sentNs = System.nanoTime();
    return true;
  }

  private void addKeys(WatchResponse.Builder message, Iterator<PageKey> keys) {
    message.setSnapshot(true).setSnapshotBegins(begins);
    begins = false;
    for (int i = 0; i < KEYS_PER_MESSAGE && keys.hasNext(); i++) {
      message.addKeys(keys.next().toByteString());
    }
    if (!keys.hasNext()) {
      message.setSnapshotEnds(true);
      snapshot = null;
    }
  }

  private boolean addChanges(WatchResponse.Builder message) {
    List<PageEvent> next = events.after(sequence, KEYS_PER_MESSAGE);
    for (PageEvent event : next) {
      message.addChanges(
          PageChange.newBuilder().setKey(event.key().toByteString()).setStored(event.stored()));
      sequence = event.sequence();
    }
    return !next.isEmpty();
  }

  /** Ends the call, on the thread, after what is under way there. */
  void end(StatusRuntimeException status) {
    run(() -> finish(status), 0);
  }

  private void finish(StatusRuntimeException status) {
    if (!ended) {
      out.onError(status);
      gone();
    }
  }

  private void gone() {
    ended = true;
    snapshot = null;
    events.removeListener(wake);
    forget.run();
  }
}
