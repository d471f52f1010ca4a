package io.kvtier.coordinator.metrics;

import io.kvtier.KvtierException;
import io.kvtier.v1.Role;
import io.micrometer.core.instrument.Counter;
import io.micrometer.core.instrument.Gauge;
import io.micrometer.core.instrument.MeterRegistry;
import java.util.Locale;
import java.util.function.Supplier;
import java.util.function.ToDoubleFunction;

/** Counts what the coordinator does. Thread-safe. */
public final class CoordinatorMeters {
  private final MeterRegistry registry;
  private final Counter opens;
  private final Counter forks;
  private final Counter closes;
  private final Counter expired;
  private final Counter resumedStaying;
  private final Counter resumedMoved;
  private final Counter detachFailures;
  private final Counter plansMade;
  private final Counter plansGiven;

  public CoordinatorMeters(MeterRegistry registry) {
    this.registry = registry;
    opens = counter(CoordinatorMeter.OPENS, "kind", "open");
    forks = counter(CoordinatorMeter.OPENS, "kind", "fork");
    closes = counter(CoordinatorMeter.CLOSES, "reason", "asked");
    expired = counter(CoordinatorMeter.CLOSES, "reason", "idle");
    resumedStaying = counter(CoordinatorMeter.RESUMES, "worker", "same");
    resumedMoved = counter(CoordinatorMeter.RESUMES, "worker", "other");
    detachFailures = counter(CoordinatorMeter.DETACH_FAILURES);
    plansMade = counter(CoordinatorMeter.PLANS, "source", "made");
    plansGiven = counter(CoordinatorMeter.PLANS, "source", "given");
    for (KvtierException.Code code : KvtierException.Code.values()) {
      // Registered before the first refusal, so that every code shows from the start.
      counter(CoordinatorMeter.REFUSALS, "code", code.name());
    }
  }

  /** Registers the gauges; each is read when the meters are scraped, on the scraper's thread. */
  public void observe(
      Supplier<Number> sessions, ToDoubleFunction<Role> nodes, ToDoubleFunction<Role> nodeBytes) {
    gauge(CoordinatorMeter.SESSIONS, sessions);
    for (Role role : new Role[] {Role.ROLE_WORKER, Role.ROLE_TIER}) {
      String tag = role.name().substring("ROLE_".length()).toLowerCase(Locale.ROOT);
      gauge(CoordinatorMeter.NODES, () -> nodes.applyAsDouble(role), "role", tag);
      gauge(CoordinatorMeter.NODE_BYTES, () -> nodeBytes.applyAsDouble(role), "role", tag);
    }
  }

  /** Registers whether this coordinator leads, and the pins. */
  public void observeLead(Supplier<Number> leads, Supplier<Number> pins) {
    gauge(CoordinatorMeter.LEADS, leads);
    gauge(CoordinatorMeter.PINS, pins);
  }

  /** Registers the gauge of the prefix directory. */
  public void observePrefixKeys(Supplier<Number> keys) {
    gauge(CoordinatorMeter.PREFIX_KEYS, keys);
  }

  public void opened() {
    opens.increment();
  }

  public void forked() {
    forks.increment();
  }

  public void closed() {
    closes.increment();
  }

  public void expired() {
    expired.increment();
  }

  /** Counts a session that was resumed. */
  public void resumed(boolean moved) {
    (moved ? resumedMoved : resumedStaying).increment();
  }

  public void detachFailed() {
    detachFailures.increment();
  }

  public void planMade() {
    plansMade.increment();
  }

  public void planGiven() {
    plansGiven.increment();
  }

  /** Counts a refused call. */
  public void refused(KvtierException.Code code) {
    counter(CoordinatorMeter.REFUSALS, "code", code.name()).increment();
  }

  private Counter counter(CoordinatorMeter meter, String... tags) {
    return Counter.builder(meter.id())
        .description(meter.description())
        .tags(tags)
        .register(registry);
  }

  private void gauge(CoordinatorMeter meter, Supplier<Number> value, String... tags) {
    Gauge.builder(meter.id(), value).description(meter.description()).tags(tags).register(registry);
  }
}
