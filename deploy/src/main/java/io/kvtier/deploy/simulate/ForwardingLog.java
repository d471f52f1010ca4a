package io.kvtier.deploy.simulate;

import io.kvtier.coordinator.log.Leadership;
import io.kvtier.coordinator.log.ReplicatedLog;
import io.kvtier.coordinator.state.ClusterState;
import io.kvtier.v1.Applied;
import io.kvtier.v1.Command;
import java.util.function.Function;

/** Another log, for those that do something about its commands. */
abstract class ForwardingLog implements ReplicatedLog {
  final ReplicatedLog log;

  ForwardingLog(ReplicatedLog log) {
    this.log = log;
  }

  @Override
  public abstract Applied submit(Command command);

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
