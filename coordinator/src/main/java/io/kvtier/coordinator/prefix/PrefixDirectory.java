package io.kvtier.coordinator.prefix;

import static io.kvtier.KvtierException.requireInRange;

import io.kvtier.page.Codec;
import io.kvtier.page.PageKey;
import io.kvtier.page.PrefixChain;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.OptionalInt;
import java.util.Set;

/**
 * Which pages of prefixes the tier nodes hold, as they tell. It may lag behind them: who relies on
 * it must take a page that is not there for a miss. Bounded in keys; what comes beyond the bound is
 * not found. Not thread-safe: the owner serializes all calls.
 */
public final class PrefixDirectory {
  /** Keys held unless configured otherwise: about 100 MB of heap. */
  public static final int KEYS_DEFAULT = 1 << 19;

  /** Versions of one page and layer that one look-up tells apart. */
  private static final int KEYS_MAX = 1 << 24;

  private record Hash(long high, long low) {
    static Hash of(PageKey key) {
      return new Hash(key.w0(), key.w1());
    }
  }

  /** A page's key, and how many nodes hold it. */
  private static final class Copies {
    final PageKey key;
    int nodes;

    Copies(PageKey key) {
      this.key = key;
    }
  }

  private final int keysMax;
  private final Map<Hash, List<Copies>> byHash = new HashMap<>();
  private final Map<String, Set<PageKey>> byNode = new HashMap<>();
  private int keys;
  private long ignored;

  public PrefixDirectory(int keysMax) {
    this.keysMax = (int) requireInRange("prefix keys", keysMax, 1, KEYS_MAX);
  }

  /** A node holds a page from now on. Pages of sessions are of no interest. */
  public void stored(String node, PageKey key) {
    if (!key.isOfPrefix()) {
      return;
    }
    if (keys >= keysMax) {
      ignored++;
      return;
    }
    if (byNode.computeIfAbsent(node, _ -> new HashSet<>()).add(key)) {
      keys++;
      copies(key).nodes++;
    }
  }

  private Copies copies(PageKey key) {
    List<Copies> pages = byHash.computeIfAbsent(Hash.of(key), _ -> new ArrayList<>(1));
    for (Copies page : pages) {
      if (page.key.equals(key)) {
        return page;
      }
    }
    Copies added = new Copies(key);
    pages.add(added);
    return added;
  }

  /** A node holds a page no longer. */
  public void removed(String node, PageKey key) {
    Set<PageKey> held = byNode.get(node);
    if (held != null && held.remove(key)) {
      uncount(key);
    }
  }

  private void uncount(PageKey key) {
    keys--;
    byHash.computeIfPresent(
        Hash.of(key),
        (_, pages) -> {
          pages.removeIf(page -> page.key.equals(key) && --page.nodes == 0);
          return pages.isEmpty() ? null : pages;
        });
  }

  /** A node is gone, or begins to tell everything anew. */
  public void forget(String node) {
    Set<PageKey> held = byNode.remove(node);
    if (held != null) {
      held.forEach(this::uncount);
    }
  }

  /**
   * Finds the longest stored beginning of a chain, in all layers, with its sink rows.
   *
   * @param codec of the pages
   */
  public StoredPrefix find(PrefixChain chain, int layers, Codec codec) {
    int[] checksums = new int[0];
    int pages = 0;
    int[] ofPage = new int[layers];
    while (pages < chain.pages() && checksumsOf(chain, pages, codec, ofPage)) {
      if (checksums.length < (pages + 1) * layers) {
        checksums = Arrays.copyOf(checksums, Math.max(16, 2 * (pages + 1)) * layers);
      }
      System.arraycopy(ofPage, 0, checksums, pages * layers, layers);
      pages++;
    }
    if (pages == 0 || !checksumsOf(chain, 0, Codec.RAW16, ofPage)) {
      return StoredPrefix.NONE;
    }
    return new StoredPrefix(pages, Arrays.copyOf(checksums, pages * layers), ofPage);
  }

  /** Whether a page is there in all layers; if so, their checksums. */
  private boolean checksumsOf(PrefixChain chain, int page, Codec codec, int[] checksums) {
    List<Copies> held = byHash.get(new Hash(chain.high(page), chain.low(page)));
    if (held == null) {
      return false;
    }
    for (int layer = 0; layer < checksums.length; layer++) {
      OptionalInt checksum = checksumOf(held, layer, codec);
      if (checksum.isEmpty()) {
        return false;
      }
      checksums[layer] = checksum.getAsInt();
    }
    return true;
  }

  /** Of several versions, the one that most nodes hold, the first told among equals. */
  private static OptionalInt checksumOf(List<Copies> held, int layer, Codec codec) {
    Copies best = null;
    for (Copies page : held) {
      if (page.key.layer() == layer
          && page.key.keyCodecId() == codec.id()
          && (best == null || page.nodes > best.nodes)) {
        best = page;
      }
    }
    return best == null ? OptionalInt.empty() : OptionalInt.of(best.key.headerChecksum());
  }

  /** The pages of a chain, in all layers and versions, by the node that holds them. */
  public Map<String, List<PageKey>> holders(PrefixChain chain) {
    Map<String, List<PageKey>> holders = new HashMap<>();
    for (int page = 0; page < chain.pages(); page++) {
      for (Copies held :
          byHash.getOrDefault(new Hash(chain.high(page), chain.low(page)), List.of())) {
        byNode.forEach((node, keysThere) -> {
          if (keysThere.contains(held.key)) {
            holders.computeIfAbsent(node, _ -> new ArrayList<>()).add(held.key);
          }
        });
      }
    }
    return holders;
  }

  /** Keys held, each once a node. */
  public int keys() {
    return keys;
  }

  /** Pages that were told beyond the bound. */
  public long ignored() {
    return ignored;
  }
}
