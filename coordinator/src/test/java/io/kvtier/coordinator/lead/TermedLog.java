package io.kvtier.coordinator.lead;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.coordinator.log.Leadership;
import io.kvtier.coordinator.log.LocalLog;
import io.kvtier.coordinator.log.ReplicatedLog;
import io.kvtier.coordinator.state.ClusterState;
import io.kvtier.v1.Applied;
import io.kvtier.v1.Command;
import java.util.Optional;
import java.util.function.Function;

/** A log of one coordinator, which says what it is told of who leads, and may fail. */
final class TermedLog implements ReplicatedLog {
  private final LocalLog log = new LocalLog(1);
  Leadership leadership = new Leadership(true, Optional.empty(), 1);

  /** Whether no majority answers. */
  boolean fails;

  @Override
  public Applied submit(Command command) {
    if (fails) {
      throw new KvtierException(Code.UNAVAILABLE, "no majority answers");
    }
    return log.submit(command);
  }

  @Override
  public void confirm() {}

  @Override
  public Leadership leadership() {
    return leadership;
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
  public void close() {}
}
