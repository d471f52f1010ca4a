package io.kvtier.deploy.simulate;

import io.kvtier.coordinator.log.ReplicatedLog;
import io.kvtier.v1.Applied;
import io.kvtier.v1.Command;
import java.util.function.BiFunction;

/** A log that does something else with commands than it is told. */
final class FaultyLog extends ForwardingLog {
  private final BiFunction<ReplicatedLog, Command, Applied> fault;

  FaultyLog(ReplicatedLog log, BiFunction<ReplicatedLog, Command, Applied> fault) {
    super(log);
    this.fault = fault;
  }

  @Override
  public Applied submit(Command command) {
    return fault.apply(log, command);
  }
}
