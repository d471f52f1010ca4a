package io.kvtier.coordinator.grpc;

import io.grpc.ManagedChannel;
import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.coordinator.membership.NodeTable;
import io.kvtier.rpc.Channels;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * Channels to workers, one a target, kept for later calls. At most {@code channelsMax} are open;
 * beyond that the one that has been unused longest is closed, never one in use. Thread-safe.
 */
final class WorkerChannels implements AutoCloseable {
  /** One for each node that there may be. */
  static final int CHANNELS_MAX = NodeTable.NODES_MAX;

  private static final class Entry {
    private final ManagedChannel channel;
    private int users;

    Entry(ManagedChannel channel) {
      this.channel = channel;
    }
  }

  /** The use of a channel for one call; close it after the call. */
  final class Use implements AutoCloseable {
    private final Entry entry;

    private Use(Entry entry) {
      this.entry = entry;
    }

    ManagedChannel channel() {
      return entry.channel;
    }

    @Override
    public void close() {
      synchronized (WorkerChannels.this) {
        entry.users--;
      }
    }
  }

  private final int channelsMax;
  private final Map<String, Entry> byTarget = new LinkedHashMap<>(16, 0.75f, true);
  private boolean closed;

  WorkerChannels(int channelsMax) {
    this.channelsMax = channelsMax;
  }

  /**
   * Takes a target's channel for one call.
   *
   * @throws KvtierException EXHAUSTED if all channels are in use, UNAVAILABLE once closed
   */
  synchronized Use use(String target) {
    if (closed) {
      throw new KvtierException(Code.UNAVAILABLE, "the coordinator is closing");
    }
    Entry entry = byTarget.get(target);
    if (entry == null) {
      if (byTarget.size() >= channelsMax) {
        closeOneUnused();
      }
      entry = new Entry(Channels.open(target));
      byTarget.put(target, entry);
    }
    entry.users++;
    return new Use(entry);
  }

  /** Makes a target's channel try to connect at once rather than after its back-off. */
  synchronized void wake(String target) {
    Entry entry = byTarget.get(target);
    if (entry != null) {
      entry.channel.resetConnectBackoff();
    }
  }

  synchronized int count() {
    return byTarget.size();
  }

  private void closeOneUnused() {
    // Access order: the first entry is the one unused longest.
    for (Iterator<Entry> all = byTarget.values().iterator(); all.hasNext(); ) {
      Entry entry = all.next();
      if (entry.users == 0) {
        all.remove();
        entry.channel.shutdown();
        return;
      }
    }
    throw new KvtierException(
        Code.EXHAUSTED,
        "calls to %d workers are out and at most %d may be; try again"
            .formatted(byTarget.size(), channelsMax));
  }

  @Override
  public void close() {
    List<Entry> rest;
    synchronized (this) {
      closed = true;
      rest = new ArrayList<>(byTarget.values());
      byTarget.clear();
    }
    rest.forEach(entry -> Channels.close(entry.channel));
  }
}
