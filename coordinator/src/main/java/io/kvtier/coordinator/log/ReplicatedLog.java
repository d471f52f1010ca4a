package io.kvtier.coordinator.log;

import io.kvtier.KvtierException;
import io.kvtier.coordinator.state.ClusterState;
import io.kvtier.v1.Applied;
import io.kvtier.v1.Command;
import java.util.function.Function;

/**
 * The log of commands, and the state that they make. What {@link #submit} has returned is kept as
 * well as the log keeps anything: in this process, on this disk, or by a majority of coordinators.
 * Thread-safe.
 */
public interface ReplicatedLog extends AutoCloseable {
  /**
   * Writes a command and tells what came of it here, once it is kept and applied.
   *
   * @throws KvtierException UNAVAILABLE if this coordinator does not lead, or cannot tell in time
   *     whether the command is kept: it may be or not
   */
  Applied submit(Command command);

  /**
   * Makes sure that what {@link #read} shows is the latest: that no other coordinator has written
   * since, as it may have while this one was cut off and had not noticed yet.
   *
   * @throws KvtierException UNAVAILABLE if no majority of coordinators says so in time
   */
  void confirm();

  /** Who writes the log now. */
  Leadership leadership();

  /** Names the state's history: the same for all coordinators of a cluster. */
  long instance();

  /** Reads the state as far as this coordinator has applied it; the reader must be brief. */
  <T> T read(Function<ClusterState, T> reader);

  /**
   * Runs something after each command that was applied, on the thread that did; it must be brief.
   */
  void onApplied(Runnable listener);

  @Override
  void close();
}
