package io.kvtier.deploy.simulate;

import io.kvtier.page.PageKey;
import java.util.ArrayList;
import java.util.EnumMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/**
 * Checks a run by books of its own: what the nodes were asked and answered, kept apart from the
 * tables that are tested.
 */
final class Audit {
  private static final int TOLD_MAX = 20;
  private static final int BREACHES_MAX = 1000;
  private static final double SECOND_NS = 1e9;

  final PageBook pages = new PageBook();
  private final EventQueue time;
  private final Map<Rule, Long> broken = new EnumMap<>(Rule.class);
  private final List<String> told = new ArrayList<>();

  /** Pages removed to make room. */
  long evicted;

  Audit(EventQueue time) {
    this.time = time;
  }

  /** Notes a rule that does not hold. */
  void broken(Rule rule, String what) {
    broken.merge(rule, 1L, Long::sum);
    if (told.size() < TOLD_MAX) {
      told.add(
          String.format(Locale.ROOT, "%s at %.1f s: %s", rule, time.nowNs() / SECOND_NS, what));
    }
  }

  /** Notes it unless it holds. */
  void require(Rule rule, boolean holds, java.util.function.Supplier<String> what) {
    if (!holds) {
      broken(rule, what.get());
    }
  }

  /** A tier has told that it has removed a page; whether for another. */
  void removed(TierNode tier, PageKey key, boolean forAnother) {
    evicted += forAnother ? 1 : 0;
    require(
        Rule.LEASED_KEPT,
        !tier.leases.holds(key, time.nowNs()),
        () -> "%s removed leased page %s".formatted(tier.id, key));
    pages.removed(tier.index, key, time.nowNs());
  }

  /** A tier has been asked for a page. */
  void read(TierNode tier, PageKey key, boolean served) {
    require(
        Rule.TRUE_PRESENCE,
        served == pages.isOn(tier.index, key),
        () ->
            "%s %s page %s, which it %s"
                .formatted(
                    tier.id,
                    served ? "served" : "missed",
                    key,
                    served ? "does not have" : "has and did not tell to have removed"));
  }

  /** Whether there is so much wrong that the rest says nothing. */
  boolean isHopeless() {
    return broken.values().stream().mapToLong(Long::longValue).sum() >= BREACHES_MAX;
  }

  /** How often each rule did not hold; a rule that always did is not there. */
  Map<Rule, Long> broken() {
    return broken;
  }

  /** The first of them in words. */
  List<String> told() {
    return told;
  }
}
