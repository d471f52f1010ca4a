package io.kvtier.cachetier.metrics;

import io.kvtier.cachetier.PageCounts;
import io.kvtier.cachetier.cache.PageCache;
import io.kvtier.cachetier.cache.Removal;
import io.micrometer.core.instrument.FunctionCounter;
import io.micrometer.core.instrument.Gauge;
import io.micrometer.core.instrument.MeterRegistry;
import java.util.concurrent.TimeUnit;

/**
 * Every meter of a cache tier that is a count: its name, its unit, its tag (empty: none) and its
 * meaning. Counters run from the start of the process.
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
  FILE_HITS(
      Kind.COUNTER,
      "kvtier.tier.file.hits",
      "pages",
      "",
      "Reads in the tier's files that processes on its host have told of"),
  FILE_BYTES(Kind.COUNTER, "kvtier.tier.file.out", "bytes", "", "Bytes of these reads"),
  BYTES_USED(Kind.GAUGE, "kvtier.tier.used", "bytes", "", "Sum of the lengths of the pages stored"),
  BYTES_MAX(Kind.GAUGE, "kvtier.tier.max", "bytes", "", "Bound of the bytes used"),
  PAGES(Kind.GAUGE, "kvtier.tier.stored", "pages", "", "Pages stored"),
  LEASES(Kind.GAUGE, "kvtier.tier.leases", "leases", "", "Leases that run"),
  LEASES_EXPIRED(
      Kind.COUNTER, "kvtier.tier.leases.expired", "leases", "", "Leases that ended by themselves"),
  PAGES_PINNED(Kind.GAUGE, "kvtier.tier.pinned", "keys", "", "Keys that leases pin"),
  LEASES_LEAKED(
      Kind.GAUGE,
      "kvtier.tier.leases.leaked",
      "keys",
      "",
      "Pins of leases that ended seconds ago; anything but 0 is a fault"),
  REMOVED_SIZE(Kind.COUNTER, "kvtier.tier.removed", "pages", "reason=size", "Pages removed"),
  REMOVED_QUOTA(Kind.COUNTER, "kvtier.tier.removed", "pages", "reason=quota", "Pages removed"),
  REMOVED_TTL(Kind.COUNTER, "kvtier.tier.removed", "pages", "reason=ttl", "Pages removed"),
  REMOVED_CORRUPT(Kind.COUNTER, "kvtier.tier.removed", "pages", "reason=corrupt", "Pages removed"),
  REMOVED_ASKED(Kind.COUNTER, "kvtier.tier.removed", "pages", "reason=asked", "Pages removed");

  private enum Kind {
    COUNTER,
    GAUGE
  }

  private record Sources(PageCounts counts, PageCache cache) {}

  /** Long enough for the tier to have looked for leases that are over. */
  private static final long LEAK_GRACE_NS = TimeUnit.SECONDS.toNanos(5);

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
  public static void bindAll(MeterRegistry meters, PageCounts counts, PageCache cache) {
    Sources sources = new Sources(counts, cache);
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
      case FILE_HITS -> from.counts.fileHits();
      case FILE_BYTES -> from.counts.fileBytes();
      case BYTES_USED -> from.cache.bytesUsed();
      case BYTES_MAX -> from.cache.bytesMax();
      case PAGES -> from.cache.pages();
      case LEASES -> from.cache.leases().leases();
      case LEASES_EXPIRED -> from.cache.leases().expired();
      case PAGES_PINNED -> from.cache.leases().keysPinned();
      case LEASES_LEAKED -> from.cache.leakedLeases(LEAK_GRACE_NS);
      case REMOVED_SIZE -> from.cache.removed(Removal.SIZE);
      case REMOVED_QUOTA -> from.cache.removed(Removal.QUOTA);
      case REMOVED_TTL -> from.cache.removed(Removal.TTL);
      case REMOVED_CORRUPT -> from.cache.removed(Removal.CORRUPT);
      case REMOVED_ASKED -> from.cache.removed(Removal.ASKED);
    };
  }
}
