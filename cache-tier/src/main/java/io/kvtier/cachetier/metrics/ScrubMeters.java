package io.kvtier.cachetier.metrics;

import io.kvtier.cachetier.cache.Scrub;
import io.micrometer.core.instrument.FunctionCounter;
import io.micrometer.core.instrument.Gauge;
import io.micrometer.core.instrument.MeterRegistry;
import java.util.function.ToDoubleFunction;

/** What the scrub has done since the start. */
public final class ScrubMeters {
  private ScrubMeters() {}

  public static void bind(MeterRegistry meters, Scrub scrub) {
    count(meters, "verified", "pages", "Pages that the scrub verified", scrub, Scrub::pages);
    count(meters, "read", "bytes", "Bytes of the pages verified", scrub, Scrub::bytes);
    count(meters, "flawed", "pages", "Pages found flawed, and removed", scrub, Scrub::flawed);
    // Counters refer to their source weakly; the strong reference of the gauge keeps it.
    Gauge.builder("kvtier.tier.scrub.round", scrub, Scrub::rounds)
        .strongReference(true)
        .description("Which pass over all pages it is")
        .register(meters);
  }

  private static void count(
      MeterRegistry meters,
      String name,
      String unit,
      String meaning,
      Scrub scrub,
      ToDoubleFunction<Scrub> value) {
    FunctionCounter.builder("kvtier.tier.scrub." + name, scrub, value)
        .baseUnit(unit)
        .description(meaning)
        .register(meters);
  }
}
