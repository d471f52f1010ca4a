package io.kvtier.coordinator.lead;

import io.kvtier.coordinator.metrics.CoordinatorMeters;
import io.kvtier.v1.CloseRequest;
import io.kvtier.v1.Command;
import io.kvtier.v1.EndSession;
import io.kvtier.v1.Session;
import io.kvtier.v1.SessionRecord;

/** Closes sessions. Thread-safe; blocks on workers. */
public final class SessionCloser {
  private final Lead lead;
  private final Workers workers;
  private final CoordinatorMeters meters;

  public SessionCloser(Lead lead, Workers workers, CoordinatorMeters meters) {
    this.lead = lead;
    this.workers = workers;
    this.meters = meters;
  }

  /** Ends a session, then has its worker free it: it is gone here first. */
  public void close(CloseRequest request) {
    SessionLimits.checkOwner(request.getOwner());
    SessionRecord open =
        lead.call(view -> view.state().sessions().get(request.getSessionId(), request.getEpoch()));
    SessionLimits.requireOwner(open.getSession(), request.getOwner());
    Session removed =
        lead.submit(
                Command.newBuilder()
                    .setEnd(
                        EndSession.newBuilder()
                            .setSessionId(request.getSessionId())
                            .setEpoch(request.getEpoch())))
            .getSession()
            .getSession();
    meters.closed();
    workers.detach(removed, lead.call(view -> view.state().sessions().pagesNeeded(open)));
  }
}
