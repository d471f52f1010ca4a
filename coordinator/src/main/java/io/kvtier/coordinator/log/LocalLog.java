package io.kvtier.coordinator.log;

import io.kvtier.coordinator.state.ClusterState;
import io.kvtier.v1.Applied;
import io.kvtier.v1.Command;
import java.util.Optional;
import java.util.function.Function;

/** The log of the only coordinator there is, which keeps its state in memory alone. */
public final class LocalLog implements ReplicatedLog {
  private final long instance;
  private final GuardedState state = new GuardedState();

  /**
   * An empty one.
   *
   * @param instance names this history; no other one may have the same
   */
  public LocalLog(long instance) {
    this.instance = instance;
  }

  @Override
  public Applied submit(Command command) {
    return state.apply(command);
  }

  @Override
  public void confirm() {}

  @Override
  public Leadership leadership() {
    return new Leadership(true, Optional.empty(), 0);
  }

  @Override
  public long instance() {
    return instance;
  }

  @Override
  public <T> T read(Function<ClusterState, T> reader) {
    return state.read(reader);
  }

  @Override
  public void onApplied(Runnable listener) {
    state.onApplied(listener);
  }

  @Override
  public void close() {}
}
