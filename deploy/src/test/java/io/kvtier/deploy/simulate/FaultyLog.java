package io.kvtier.deploy.simulate;

import io.kvtier.coordinator.log.Leadership;
import io.kvtier.coordinator.log.ReplicatedLog;
import io.kvtier.coordinator.state.ClusterState;
import io.kvtier.v1.Applied;
import io.kvtier.v1.Command;
import java.util.function.BiFunction;
import java.util.function.Function;

/** A log that does something else with commands than it is told. */
final class FaultyLog implements ReplicatedLog {
  private final ReplicatedLog log;
  private final BiFunction<ReplicatedLog, Command, Applied> fault;

  FaultyLog(ReplicatedLog log, BiFunction<ReplicatedLog, Command, Applied> fault) {
    this.log = log;
    this.fault = fault;
  }

  @Override
  public Applied submit(Command command) {
    return fault.apply(log, command);
  }

  @Override
  public void confirm() {
    log.confirm();
  }

  @Override
  public Leadership leadership() {
    return log.leadership();
  }

  @Override
  public long instance() {
    return log.instance();
  }

  @Override
  public <T> T read(Function<ClusterState, T> reader) {
    return log.read(reader);
  }

  @Override
  public void onApplied(Runnable listener) {
    log.onApplied(listener);
  }

  @Override
  public void close() {
    log.close();
  }
}
