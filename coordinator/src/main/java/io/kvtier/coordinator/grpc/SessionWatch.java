package io.kvtier.coordinator.grpc;

import io.grpc.stub.ServerCallStreamObserver;
import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.coordinator.lead.Lead;
import io.kvtier.coordinator.session.ChangeLog;
import io.kvtier.v1.Session;
import io.kvtier.v1.SessionChange;
import io.kvtier.v1.SessionRecord;
import io.kvtier.v1.WatchSessionsRequest;
import io.kvtier.v1.WatchSessionsResponse;
import java.time.Duration;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;

/**
 * Tells watchers which sessions are open, then every change. Each watcher keeps the thread that
 * serves its call, which must be a virtual one. Thread-safe.
 */
final class SessionWatch {
  static final int WATCHERS_MAX = 256;
  private static final long ROUND_NS = Duration.ofMillis(100).toNanos();
  private static final long NOT_READY_NS = Duration.ofMillis(5).toNanos();
  private static final int PART_SESSIONS = 64;

  private final Lead lead;
  private final Semaphore places = new Semaphore(WATCHERS_MAX);
  private final Object changed = new Object();

  /** Guarded by the above. */
  private long applied;

  SessionWatch(Lead lead) {
    this.lead = lead;
    lead.log()
        .onApplied(() -> {
          synchronized (changed) {
            applied++;
            changed.notifyAll();
          }
        });
  }

  /** A snapshot and the number of the last change before it. */
  private record Snapshot(List<Session> sessions, long sequence) {}

  void serve(
      WatchSessionsRequest request, ServerCallStreamObserver<WatchSessionsResponse> watcher) {
    if (!places.tryAcquire()) {
      throw new KvtierException(
          Code.EXHAUSTED, "%d callers watch already; end one".formatted(WATCHERS_MAX));
    }
    try {
      tellAll(request, watcher);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new KvtierException(Code.UNAVAILABLE, "the coordinator is closing", e);
    } finally {
      places.release();
    }
  }

  private void tellAll(
      WatchSessionsRequest request, ServerCallStreamObserver<WatchSessionsResponse> watcher)
      throws InterruptedException {
    boolean known = request.getInstance() == lead.log().instance();
    long told = request.getSequence();
    if (!known || changesAfter(told).isEmpty()) {
      told = tellSnapshot(watcher);
    }
    while (!watcher.isCancelled()) {
      lead.require();
      if (watcher.isReady()) {
        long last = told;
        List<SessionChange> changes =
            changesAfter(told)
                .orElseThrow(() ->
                    new KvtierException(
                        Code.EXHAUSTED,
                        "the watcher is too far behind, at change %d; watch again"
                            .formatted(last)));
        if (!changes.isEmpty()) {
          told += changes.size();
          watcher.onNext(message(told).addAllChanges(changes).build());
        }
      }
      awaitChange(told);
    }
  }

  private void awaitChange(long told) throws InterruptedException {
    synchronized (changed) {
      boolean toldAll = lead.log().read(state -> state.changes().sequence()) == told;
      // One that is not ready to take more: look again soon.
      await(toldAll ? ROUND_NS : NOT_READY_NS);
    }
  }

  /** Waits for a change, but not longer than that; the lock is held. */
  private void await(long timeoutNs) throws InterruptedException {
    long before = applied;
    long startNs = System.nanoTime();
    long leftNs = timeoutNs;
    while (applied == before && leftNs > 0) {
      TimeUnit.NANOSECONDS.timedWait(changed, leftNs);
      leftNs = timeoutNs - (System.nanoTime() - startNs);
    }
  }

  private Optional<List<SessionChange>> changesAfter(long sequence) {
    return lead.log()
        .read(state -> {
          ChangeLog changes = state.changes();
          return changes.after(sequence, PART_SESSIONS);
        });
  }

  private long tellSnapshot(ServerCallStreamObserver<WatchSessionsResponse> watcher)
      throws InterruptedException {
    Snapshot snapshot =
        lead.log()
            .read(state ->
                new Snapshot(
                    state.sessions().list().stream().map(SessionRecord::getSession).toList(),
                    state.changes().sequence()));
    List<Session> sessions = snapshot.sessions;
    int at = 0;
    do {
      while (!watcher.isReady() && !watcher.isCancelled()) {
        synchronized (changed) {
          await(NOT_READY_NS);
        }
      }
      int end = Math.min(sessions.size(), at + PART_SESSIONS);
      watcher.onNext(
          message(snapshot.sequence)
              .setSnapshot(true)
              .setSnapshotBegins(at == 0)
              .setSnapshotEnds(end == sessions.size())
              .addAllSessions(sessions.subList(at, end))
              .build());
      at = end;
    } while (at < sessions.size() && !watcher.isCancelled());
    return snapshot.sequence;
  }

  private WatchSessionsResponse.Builder message(long sequence) {
    return WatchSessionsResponse.newBuilder()
        .setInstance(lead.log().instance())
        .setSequence(sequence);
  }
}
