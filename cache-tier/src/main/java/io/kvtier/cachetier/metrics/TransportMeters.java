package io.kvtier.cachetier.metrics;

import io.micrometer.core.instrument.Gauge;
import io.micrometer.core.instrument.MeterRegistry;
import java.util.function.IntSupplier;

/** The meters of how pages come and go: gauges that are read when they are asked. */
public final class TransportMeters {
  private TransportMeters() {}

  /**
   * Registers all meters.
   *
   * @param queued handler tasks that wait for a thread
   * @param streams streams of pages that are open over gRPC
   * @param connections connections of the direct path that are open
   */
  public static void bindAll(
      MeterRegistry meters, IntSupplier queued, IntSupplier streams, IntSupplier connections) {
    gauge(meters, "kvtier.tier.handlers.queued", "Handler tasks that wait for a thread", queued);
    gauge(meters, "kvtier.tier.streams", "Streams of pages that are open over gRPC", streams);
    gauge(
        meters,
        "kvtier.tier.direct.connections",
        "Connections of the direct path that are open",
        connections);
  }

  private static void gauge(MeterRegistry meters, String name, String meaning, IntSupplier value) {
    Gauge.builder(name, value, IntSupplier::getAsInt)
        .strongReference(true)
        .description(meaning)
        .register(meters);
  }
}
