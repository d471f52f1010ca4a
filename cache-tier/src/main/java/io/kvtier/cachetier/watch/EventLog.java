package io.kvtier.cachetier.watch;

import static io.kvtier.KvtierException.requireInRange;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.page.PageKey;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.concurrent.CopyOnWriteArraySet;
import org.jspecify.annotations.Nullable;

/**
 * The last events of a tier, numbered from 1 without a gap; older ones are forgotten. Who appends
 * sees to the order of the events of one key. Safe for use by many threads.
 */
public final class EventLog {
  private final @Nullable PageEvent[] ring;
  private final long instance;
  private final Set<Runnable> listeners = new CopyOnWriteArraySet<>();
  private long last;

  /**
   * @param eventsMax events kept, 1..2^24
   * @param instance names this run of the tier; another one after each start
   */
  public EventLog(int eventsMax, long instance) {
    requireInRange("events max", eventsMax, 1, 1 << 24);
    this.ring = new PageEvent[eventsMax];
    this.instance = instance;
  }

  /** Names this run of the tier: sequence numbers of other runs mean nothing here. */
  public long instance() {
    return instance;
  }

  /** Adds an event, then tells the listeners. */
  public void append(PageKey key, boolean stored) {
    synchronized (this) {
      last++;
      ring[(int) (last % ring.length)] = new PageEvent(last, key, stored);
    }
    listeners.forEach(Runnable::run);
  }

  /** Sequence number of the latest event; 0: there was none. */
  public synchronized long last() {
    return last;
  }

  /** Whether all events after a number are still here. */
  public synchronized boolean reachesBack(long after) {
    return after >= 0 && after <= last && last - after <= ring.length;
  }

  /**
   * The next events after a number, at most so many; empty: there are none yet.
   *
   * @throws KvtierException EXHAUSTED if some of them have been forgotten
   */
  public synchronized List<PageEvent> after(long after, int countMax) {
    if (!reachesBack(after)) {
      throw new KvtierException(
          Code.EXHAUSTED,
          "watcher is %d events behind; the tier keeps %d: watch again from a snapshot"
              .formatted(last - after, ring.length));
    }
    int count = (int) Math.min(countMax, last - after);
    List<PageEvent> events = new ArrayList<>(count);
    for (long sequence = after + 1; sequence <= after + count; sequence++) {
      PageEvent event = ring[(int) (sequence % ring.length)];
      if (event != null) {
        events.add(event);
      }
    }
    return events;
  }

  /**
   * Calls a listener after each event from now on, on the thread that appends: it must be brief and
   * not call the tier.
   */
  public void addListener(Runnable listener) {
    listeners.add(listener);
  }

  public void removeListener(Runnable listener) {
    listeners.remove(listener);
  }
}
