package io.kvtier.cachetier.metrics;

import io.kvtier.cachetier.Recovery;
import io.micrometer.core.instrument.Gauge;
import io.micrometer.core.instrument.MeterRegistry;

/** What a persistent store found when it opened after an unclean stop. */
public final class RecoveryMeters {
  private RecoveryMeters() {}

  public static void bind(MeterRegistry meters, Recovery recovery) {
    Gauge.builder("kvtier.tier.recovered", recovery, Recovery::pagesKept)
        .strongReference(true)
        .baseUnit("pages")
        .description("Pages found sound when the store opened after an unclean stop")
        .register(meters);
    Gauge.builder("kvtier.tier.dropped", recovery, Recovery::pagesDropped)
        .strongReference(true)
        .baseUnit("pages")
        .description("Pages found torn, and removed, when the store opened after an unclean stop")
        .register(meters);
  }
}
