package io.kvtier.coordinator.grpc;

import io.grpc.Context;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.StreamObserver;
import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.coordinator.metrics.CoordinatorMeters;
import io.kvtier.rpc.Statuses;
import io.kvtier.v1.AttachRequest;
import io.kvtier.v1.AttentionGrpc;
import io.kvtier.v1.DetachRequest;
import io.kvtier.v1.DetachResponse;
import io.kvtier.v1.Session;
import io.kvtier.v1.SharedPrefix;
import java.time.Duration;
import java.util.concurrent.TimeUnit;
import java.util.logging.Level;
import java.util.logging.Logger;

/** Tells workers which sessions they have. Owns the channels to them. Thread-safe. */
public final class WorkerClients implements AutoCloseable {
  private static final Logger LOG = Logger.getLogger(WorkerClients.class.getName());

  private final WorkerChannels channels = new WorkerChannels(WorkerChannels.CHANNELS_MAX);
  private final long deadlineNs;
  private final CoordinatorMeters meters;

  public WorkerClients(Duration deadline, CoordinatorMeters meters) {
    this.deadlineNs = deadline.toNanos();
    this.meters = meters;
  }

  /**
   * Hands a session to its worker and waits for the answer. The deadline and the cancellation of
   * the call that is being served apply too.
   *
   * @param forkOf session to start as a copy of, or empty
   * @param prefix names of its prompt's pages; without hashes there are none
   * @return first tokens that the session has from the start; 0 for a fork
   * @throws KvtierException UNAVAILABLE if the worker does not answer in time, else as it refused
   */
  int attach(Session session, String forkOf, SharedPrefix prefix) {
    String target = session.getWorkerTarget();
    try (WorkerChannels.Use use = channels.use(target)) {
      AttachRequest request =
          AttachRequest.newBuilder()
              .setSession(session)
              .setForkOf(forkOf)
              .setPrefix(prefix)
              .build();
      return AttentionGrpc.newBlockingStub(use.channel())
          .withDeadlineAfter(deadlineNs, TimeUnit.NANOSECONDS)
          .attach(request)
          .getReusedTokens();
    } catch (StatusRuntimeException e) {
      KvtierException refusal = Statuses.fromStatus(e, "worker " + target);
      // To the engine a silent worker and an absent one are the same: it may try again.
      throw refusal.code() == Code.DEADLINE
          ? new KvtierException(
              Code.UNAVAILABLE, "worker %s did not answer in time; try again".formatted(target), e)
          : refusal;
    }
  }

  /**
   * Tells a worker to free a session and waits. A worker that does not answer is logged and
   * counted, as the session is gone here whatever it says.
   */
  void detach(String target, String sessionId) {
    try (WorkerChannels.Use use = channels.use(target)) {
      // The session is removed already, so the worker must hear of it even if our caller leaves.
      Context.ROOT.run(() ->
          AttentionGrpc.newBlockingStub(use.channel())
              .withDeadlineAfter(deadlineNs, TimeUnit.NANOSECONDS)
              .detach(request(sessionId)));
    } catch (StatusRuntimeException | KvtierException e) {
      detachFailed(target, sessionId, e);
    }
  }

  /** Tells a worker to free a session and does not wait; it may never have had it. */
  void detachLater(String target, String sessionId) {
    WorkerChannels.Use use;
    try {
      use = channels.use(target);
    } catch (KvtierException e) {
      detachFailed(target, sessionId, e);
      return;
    }
    StreamObserver<DetachResponse> observer =
        new StreamObserver<>() {
          @Override
          public void onNext(DetachResponse response) {}

          @Override
          public void onError(Throwable thrown) {
            use.close();
            detachFailed(target, sessionId, thrown);
          }

          @Override
          public void onCompleted() {
            use.close();
          }
        };
    Context.ROOT.run(() ->
        AttentionGrpc.newStub(use.channel())
            .withDeadlineAfter(deadlineNs, TimeUnit.NANOSECONDS)
            .detach(request(sessionId), observer));
  }

  /** Connects to a worker that just came (back) without waiting for a back-off to end. */
  void wake(String target) {
    channels.wake(target);
  }

  private static DetachRequest request(String sessionId) {
    return DetachRequest.newBuilder().setSessionId(sessionId).build();
  }

  private void detachFailed(String target, String sessionId, Throwable thrown) {
    meters.detachFailed();
    LOG.log(
        Level.WARNING,
        "worker {0} could not be told to free session {1} and may hold its memory: {2}",
        new Object[] {target, sessionId, thrown.getMessage()});
  }

  @Override
  public void close() {
    channels.close();
  }
}
