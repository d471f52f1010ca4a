package io.kvtier.deploy.simulate;

import java.util.Comparator;
import java.util.PriorityQueue;

/** What happens, in the order of virtual time; what is due at once, in the order it was put in. */
final class EventQueue {
  private record Event(long atNs, long order, Runnable what) {}

  private final PriorityQueue<Event> events =
      new PriorityQueue<>(Comparator.comparingLong(Event::atNs).thenComparingLong(Event::order));
  private long orders;
  private long nowNs;

  /** Virtual nanoseconds since the beginning. */
  long nowNs() {
    return nowNs;
  }

  /** Has something happen after a while. */
  void after(long delayNs, Runnable what) {
    events.add(new Event(nowNs + delayNs, orders++, what));
  }

  /** Has something happen at a time, or now if that is past. */
  void at(long atNs, Runnable what) {
    after(Math.max(0, atNs - nowNs), what);
  }

  /** Has something happen every so often, first after one period, for as long as it says so. */
  void every(long periodNs, java.util.function.BooleanSupplier what) {
    after(
        periodNs,
        () -> {
          if (what.getAsBoolean()) {
            every(periodNs, what);
          }
        });
  }

  /** Lets the next event happen; false: there is none. */
  boolean step() {
    Event next = events.poll();
    if (next == null) {
      return false;
    }
    nowNs = next.atNs;
    next.what.run();
    return true;
  }

  /** Events that have happened or are to. */
  long count() {
    return orders;
  }
}
