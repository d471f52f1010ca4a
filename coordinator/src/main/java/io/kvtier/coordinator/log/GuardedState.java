package io.kvtier.coordinator.log;

import io.kvtier.coordinator.state.ClusterState;
import io.kvtier.v1.Applied;
import io.kvtier.v1.Command;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.Function;

/** A state behind its lock, and who is told of its changes. Thread-safe. */
public final class GuardedState {
  private final ReentrantLock lock = new ReentrantLock();
  private final ClusterState state = new ClusterState();
  private final List<Runnable> listeners = new CopyOnWriteArrayList<>();

  /** Applies a command. */
  public Applied apply(Command command) {
    Applied applied = read(held -> held.apply(command));
    listeners.forEach(Runnable::run);
    return applied;
  }

  /** Works on the state under its lock. */
  public <T> T read(Function<ClusterState, T> work) {
    lock.lock();
    try {
      return work.apply(state);
    } finally {
      lock.unlock();
    }
  }

  /** Runs something after each command from now on. */
  public void onApplied(Runnable listener) {
    listeners.add(listener);
  }
}
