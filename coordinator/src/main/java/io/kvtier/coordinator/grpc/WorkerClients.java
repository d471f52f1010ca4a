package io.kvtier.coordinator.grpc;

import com.google.errorprone.annotations.CanIgnoreReturnValue;
import io.grpc.Context;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.health.v1.HealthCheckRequest;
import io.grpc.health.v1.HealthGrpc;
import io.grpc.stub.StreamObserver;
import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.coordinator.lead.Workers;
import io.kvtier.coordinator.metrics.CoordinatorMeters;
import io.kvtier.rpc.Statuses;
import io.kvtier.v1.AttachRequest;
import io.kvtier.v1.AttachResponse;
import io.kvtier.v1.AttentionGrpc;
import io.kvtier.v1.DetachRequest;
import io.kvtier.v1.DetachResponse;
import io.kvtier.v1.Session;
import java.time.Duration;
import java.util.concurrent.TimeUnit;
import java.util.logging.Level;
import java.util.logging.Logger;

/** Tells workers which sessions they have. Owns the channels to them. Thread-safe. */
public final class WorkerClients implements Workers, AutoCloseable {
  private static final Logger LOG = Logger.getLogger(WorkerClients.class.getName());

  /** A worker that takes longer is taken for lost by a caller that could not reach it either. */
  private static final long PROBE_DEADLINE_MS = 500;

  private final WorkerChannels channels = new WorkerChannels(WorkerChannels.CHANNELS_MAX);
  private final long deadlineNs;
  private final CoordinatorMeters meters;

  public WorkerClients(Duration deadline, CoordinatorMeters meters) {
    this.deadlineNs = deadline.toNanos();
    this.meters = meters;
  }

  /** The deadline and the cancellation of the call that is being served apply too. */
  @Override
  public AttachResponse attach(AttachRequest request) {
    String target = request.getSession().getWorkerTarget();
    try (WorkerChannels.Use use = channels.use(target)) {
      return AttentionGrpc.newBlockingStub(use.channel())
          .withDeadlineAfter(deadlineNs, TimeUnit.NANOSECONDS)
          .attach(request);
    } catch (StatusRuntimeException e) {
      KvtierException refusal = Statuses.fromStatus(e, "worker " + target);
      // To the engine a silent worker and an absent one are the same: it may try again.
      throw refusal.code() == Code.DEADLINE
          ? new KvtierException(
              Code.UNAVAILABLE, "worker %s did not answer in time; try again".formatted(target), e)
          : refusal;
    }
  }

  @Override
  public boolean answers(String target) {
    try (WorkerChannels.Use use = channels.use(target)) {
      // What it says does not matter.
      var _ =
          HealthGrpc.newBlockingStub(use.channel())
              .withDeadlineAfter(PROBE_DEADLINE_MS, TimeUnit.MILLISECONDS)
              .check(HealthCheckRequest.getDefaultInstance());
      return true;
    } catch (StatusRuntimeException e) {
      Status status = e.getStatus();
      return !Statuses.isUnavailable(status) && status.getCode() != Status.Code.DEADLINE_EXCEEDED;
    } catch (KvtierException e) {
      return false;
    }
  }

  /** A worker that does not answer is logged and counted. */
  @Override
  @CanIgnoreReturnValue
  public boolean detach(Session session, boolean keepPages) {
    String target = session.getWorkerTarget();
    try (WorkerChannels.Use use = channels.use(target)) {
      // The session is removed already, so the worker must hear of it even if our caller leaves.
      Context.ROOT.run(() ->
          AttentionGrpc.newBlockingStub(use.channel())
              .withDeadlineAfter(deadlineNs, TimeUnit.NANOSECONDS)
              .detach(request(session, keepPages)));
      return true;
    } catch (StatusRuntimeException | KvtierException e) {
      detachFailed(session, e);
      return false;
    }
  }

  @Override
  public void detachLater(Session session, boolean keepPages) {
    WorkerChannels.Use use;
    try {
      use = channels.use(session.getWorkerTarget());
    } catch (KvtierException e) {
      detachFailed(session, e);
      return;
    }
    StreamObserver<DetachResponse> observer =
        new StreamObserver<>() {
          @Override
          public void onNext(DetachResponse response) {}

          @Override
          public void onError(Throwable thrown) {
            use.close();
            detachFailed(session, thrown);
          }

          @Override
          public void onCompleted() {
            use.close();
          }
        };
    Context.ROOT.run(() ->
        AttentionGrpc.newStub(use.channel())
            .withDeadlineAfter(deadlineNs, TimeUnit.NANOSECONDS)
            .detach(request(session, keepPages), observer));
  }

  /** Connects to a worker that just came (back) without waiting for a back-off to end. */
  void wake(String target) {
    channels.wake(target);
  }

  private static DetachRequest request(Session session, boolean keepPages) {
    return DetachRequest.newBuilder()
        .setSessionId(session.getSessionId())
        .setEpoch(session.getEpoch())
        .setKeepPages(keepPages)
        .build();
  }

  private void detachFailed(Session session, Throwable thrown) {
    meters.detachFailed();
    LOG.log(
        Level.WARNING,
        "worker {0} could not be told to free session {1} and may hold it until it is idle: {2}",
        new Object[] {session.getWorkerTarget(), session.getSessionId(), thrown.getMessage()});
  }

  @Override
  public void close() {
    channels.close();
  }
}
