package io.kvtier.cachetier.metrics;

import io.kvtier.cachetier.cache.Removal;
import io.kvtier.cachetier.cache.RemovalListener;
import io.micrometer.core.instrument.MeterRegistry;
import io.micrometer.core.instrument.Timer;
import java.time.Duration;
import java.util.EnumMap;
import java.util.Locale;
import java.util.Map;
import java.util.Objects;
import java.util.concurrent.TimeUnit;

/** The age of the pages removed, by reason: {@code kvtier.tier.removed.age}. */
public final class RemovalMeters implements RemovalListener {
  private static final Duration[] BUCKETS = {
    Duration.ofSeconds(1),
    Duration.ofSeconds(10),
    Duration.ofMinutes(1),
    Duration.ofMinutes(10),
    Duration.ofHours(1),
    Duration.ofHours(10),
    Duration.ofDays(4)
  };

  private final Map<Removal, Timer> ages = new EnumMap<>(Removal.class);

  public RemovalMeters(MeterRegistry meters) {
    for (Removal reason : Removal.values()) {
      ages.put(
          reason,
          Timer.builder("kvtier.tier.removed.age")
              .description("Time since the pages removed had been stored")
              .tag("reason", reason.name().toLowerCase(Locale.ROOT))
              .serviceLevelObjectives(BUCKETS)
              .register(meters));
    }
  }

  @Override
  public void removed(Removal reason, long ageNs, int length) {
    Objects.requireNonNull(ages.get(reason)).record(ageNs, TimeUnit.NANOSECONDS);
  }
}
