package io.kvtier.cachetier.grpc;

import io.grpc.stub.ServerCallStreamObserver;
import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.cachetier.cache.PageCache;
import io.kvtier.rpc.Statuses;
import io.kvtier.v1.WatchRequest;
import io.kvtier.v1.WatchResponse;
import java.util.HashSet;
import java.util.Set;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;

/**
 * All Watch calls of a tier, served by one thread, so that watchers cost the other calls nothing
 * but that thread's time. Owns the thread; {@link #close} ends the calls with UNAVAILABLE.
 */
public final class Watchers implements AutoCloseable {
  /** Most Watch calls at a time. */
  static final int WATCHERS_MAX = 64;

  private final PageCache cache;
  private final ScheduledExecutorService thread =
      Executors.newSingleThreadScheduledExecutor(
          Thread.ofPlatform().name("kvtier-tier-watch").daemon().factory());
  private final Set<WatchStream> streams = new HashSet<>();
  private boolean closed;

  public Watchers(PageCache cache) {
    this.cache = cache;
  }

  void watch(WatchRequest request, ServerCallStreamObserver<WatchResponse> out) {
    WatchStream stream = new WatchStream(request, out, cache, thread);
    synchronized (this) {
      if (closed) {
        throw stopping();
      }
      if (streams.size() == WATCHERS_MAX) {
        throw new KvtierException(
            Code.EXHAUSTED,
            "tier has %d watchers, which is its bound; end one".formatted(WATCHERS_MAX));
      }
      streams.add(stream);
    }
    stream.begin(() -> forget(stream));
  }

  private synchronized void forget(WatchStream stream) {
    streams.remove(stream);
  }

  /** Watch calls that run. */
  public synchronized int count() {
    return streams.size();
  }

  private static KvtierException stopping() {
    return new KvtierException(Code.UNAVAILABLE, "the tier is stopping");
  }

  @Override
  public void close() {
    Set<WatchStream> left;
    synchronized (this) {
      closed = true;
      left = Set.copyOf(streams);
    }
    left.forEach(stream -> stream.end(Statuses.toStatus(stopping())));
    thread.shutdown();
  }
}
