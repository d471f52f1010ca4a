package io.kvtier.cachetier.metrics;

import io.kvtier.cachetier.PageCounts;
import io.kvtier.cachetier.PageStore;
import io.kvtier.cachetier.Recovery;
import io.micrometer.core.instrument.FunctionCounter;
import io.micrometer.core.instrument.Gauge;
import io.micrometer.core.instrument.MeterRegistry;

/**
 * Every meter of a cache tier: its name, its unit, its tag (empty: none) and its meaning. Counters
 * run from the start of the process.
 */
public enum TierMeter {
  HITS(Kind.COUNTER, "kvtier.tier.hits", "pages", "", "Reads that were served"),
  MISSES_ABSENT(
      Kind.COUNTER, "kvtier.tier.misses", "pages", "reason=absent", "Reads that were not served"),
  MISSES_CORRUPT(
      Kind.COUNTER, "kvtier.tier.misses", "pages", "reason=corrupt", "Reads that were not served"),
  PUTS_STORED(Kind.COUNTER, "kvtier.tier.puts", "pages", "result=stored", "Sound pages put"),
  PUTS_EXISTED(Kind.COUNTER, "kvtier.tier.puts", "pages", "result=existed", "Sound pages put"),
  BYTES_IN(Kind.COUNTER, "kvtier.tier.in", "bytes", "", "Bytes of pages stored"),
  BYTES_OUT(Kind.COUNTER, "kvtier.tier.out", "bytes", "", "Bytes of pages and sections served"),
  BYTES_USED(Kind.GAUGE, "kvtier.tier.used", "bytes", "", "Sum of the lengths of the pages stored"),
  BYTES_MAX(Kind.GAUGE, "kvtier.tier.max", "bytes", "", "Bound of the bytes used"),
  PAGES(Kind.GAUGE, "kvtier.tier.stored", "pages", "", "Pages stored"),
  PAGES_RECOVERED(
      Kind.GAUGE,
      "kvtier.tier.recovered",
      "pages",
      "",
      "Pages found sound when the store opened after an unclean stop"),
  PAGES_DROPPED(
      Kind.GAUGE,
      "kvtier.tier.dropped",
      "pages",
      "",
      "Pages found torn, and removed, when the store opened after an unclean stop");

  private enum Kind {
    COUNTER,
    GAUGE
  }

  private record Sources(PageCounts counts, PageStore store, Recovery recovery) {}

  private final Kind kind;
  private final String meterName;
  private final String unit;
  private final String tag;
  private final String meaning;

  TierMeter(Kind kind, String meterName, String unit, String tag, String meaning) {
    this.kind = kind;
    this.meterName = meterName;
    this.unit = unit;
    this.tag = tag;
    this.meaning = meaning;
  }

  /** The meter's name; in Prometheus' format its unit is appended to it. */
  public String meterName() {
    return meterName;
  }

  /** The unit of the meter's value. */
  public String unit() {
    return unit;
  }

  /**
   * The tag that tells this meter from others of its name, as key=value; empty if there are none.
   */
  public String tag() {
    return tag;
  }

  /** What the meter's value tells. */
  public String meaning() {
    return meaning;
  }

  /** Registers all meters; they read their values when they are asked. */
  public static void bindAll(
      MeterRegistry meters, PageCounts counts, PageStore store, Recovery recovery) {
    Sources sources = new Sources(counts, store, recovery);
    for (TierMeter meter : values()) {
      meter.bind(meters, sources);
    }
  }

  private void bind(MeterRegistry meters, Sources sources) {
    String[] tags = tag.isEmpty() ? new String[0] : tag.split("=", 2);
    switch (kind) {
      case COUNTER ->
          FunctionCounter.builder(meterName, sources, this::value)
              .baseUnit(unit)
              .description(meaning)
              .tags(tags)
              .register(meters);
      case GAUGE ->
          // Counters refer to their source weakly; the strong references of the gauges keep it.
          Gauge.builder(meterName, sources, this::value)
              .strongReference(true)
              .baseUnit(unit)
              .description(meaning)
              .tags(tags)
              .register(meters);
    }
  }

  private double value(Sources from) {
    return switch (this) {
      case HITS -> from.counts.hits();
      case MISSES_ABSENT -> from.counts.missesAbsent();
      case MISSES_CORRUPT -> from.counts.missesCorrupt();
      case PUTS_STORED -> from.counts.putsStored();
      case PUTS_EXISTED -> from.counts.putsExisted();
      case BYTES_IN -> from.counts.bytesIn();
      case BYTES_OUT -> from.counts.bytesOut();
      case BYTES_USED -> from.store.bytesUsed();
      case BYTES_MAX -> from.store.bytesMax();
      case PAGES -> from.store.pages();
      case PAGES_RECOVERED -> from.recovery.pagesKept();
      case PAGES_DROPPED -> from.recovery.pagesDropped();
    };
  }
}
