package io.kvtier.deploy.simulate;

import io.kvtier.page.PageKey;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Iterator;
import java.util.Map;
import java.util.function.BiConsumer;

/**
 * Where each page is, as the tiers answered and told, which have been acknowledged, and how many
 * sessions rely on each.
 */
final class PageBook {
  private static final int[] NOWHERE = {};

  /** A page. */
  static final class Entry {
    private int[] tiers = NOWHERE;
    private int sessions;
    private boolean acknowledged;

    int copies() {
      return tiers.length;
    }

    boolean needed() {
      return acknowledged && sessions > 0;
    }

    private boolean isOn(int tier) {
      for (int each : tiers) {
        if (each == tier) {
          return true;
        }
      }
      return false;
    }

    private boolean isNothing() {
      return tiers.length == 0 && sessions == 0;
    }
  }

  private final Map<PageKey, Entry> pages = new HashMap<>();

  /** When pages of prefixes were gone from their last tier. */
  private final Map<PageKey, Long> goneNs = new HashMap<>();

  private Entry entry(PageKey key) {
    return pages.computeIfAbsent(key, _ -> new Entry());
  }

  void stored(int tier, PageKey key) {
    Entry page = entry(key);
    if (!page.isOn(tier)) {
      page.tiers = Arrays.copyOf(page.tiers, page.tiers.length + 1);
      page.tiers[page.tiers.length - 1] = tier;
    }
  }

  void removed(int tier, PageKey key, long nowNs) {
    Entry page = pages.get(key);
    if (page != null) {
      takeOff(tier, key, page, nowNs);
      if (page.isNothing()) {
        pages.remove(key);
      }
    }
  }

  private void takeOff(int tier, PageKey key, Entry page, long nowNs) {
    page.tiers = Arrays.stream(page.tiers).filter(each -> each != tier).toArray();
    if (page.tiers.length == 0 && key.isOfPrefix()) {
      goneNs.put(key, nowNs);
    }
  }

  /** Whether some tier has a prefix's page, or had it a while ago. */
  boolean isOrWasStored(PageKey key, long sinceNs) {
    Entry page = pages.get(key);
    if (page != null && page.tiers.length > 0) {
      return true;
    }
    Long gone = goneNs.get(key);
    return gone != null && gone >= sinceNs;
  }

  boolean isOn(int tier, PageKey key) {
    Entry page = pages.get(key);
    return page != null && page.isOn(tier);
  }

  /** Tiers that have a page. */
  int copies(PageKey key) {
    Entry page = pages.get(key);
    return page == null ? 0 : page.copies();
  }

  /** A put has returned; how many copies there are. */
  int acknowledged(PageKey key) {
    Entry page = entry(key);
    page.acknowledged = true;
    return page.copies();
  }

  /** One more session relies on a page. */
  void use(PageKey key) {
    entry(key).sessions++;
  }

  /** One session fewer does. */
  void leave(PageKey key) {
    Entry page = pages.get(key);
    if (page == null || page.sessions == 0) {
      throw new IllegalStateException("no session relies on page " + key);
    }
    page.sessions--;
    if (page.isNothing()) {
      pages.remove(key);
    }
  }

  /** A tier is gone with all its pages; the taker hears of each that it had, once it is off. */
  void lost(int tier, long nowNs, BiConsumer<PageKey, Entry> taker) {
    for (Iterator<Map.Entry<PageKey, Entry>> all = pages.entrySet().iterator(); all.hasNext(); ) {
      Map.Entry<PageKey, Entry> each = all.next();
      Entry page = each.getValue();
      if (page.isOn(tier)) {
        takeOff(tier, each.getKey(), page, nowNs);
        taker.accept(each.getKey(), page);
        if (page.isNothing()) {
          all.remove();
        }
      }
    }
  }

  void forEach(BiConsumer<PageKey, Entry> taker) {
    pages.forEach(taker);
  }
}
