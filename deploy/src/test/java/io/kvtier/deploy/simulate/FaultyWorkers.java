package io.kvtier.deploy.simulate;

import io.kvtier.coordinator.lead.Workers;
import io.kvtier.v1.AttachRequest;
import io.kvtier.v1.AttachResponse;
import io.kvtier.v1.Session;
import java.util.function.BiFunction;

/** Workers that take sessions in otherwise than they are told. */
final class FaultyWorkers implements Workers {
  private final Workers workers;
  private final BiFunction<Workers, AttachRequest, AttachResponse> fault;

  FaultyWorkers(Workers workers, BiFunction<Workers, AttachRequest, AttachResponse> fault) {
    this.workers = workers;
    this.fault = fault;
  }

  @Override
  public AttachResponse attach(AttachRequest request) {
    return fault.apply(workers, request);
  }

  @Override
  public boolean answers(String target) {
    return workers.answers(target);
  }

  @Override
  public boolean detach(Session session, boolean keepPages) {
    return workers.detach(session, keepPages);
  }

  @Override
  public void detachLater(Session session, boolean keepPages) {
    workers.detachLater(session, keepPages);
  }
}
