package io.kvtier.gpuworker.session;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.gpuworker.device.DeviceSlot;
import io.kvtier.gpuworker.device.LayerPass;
import io.kvtier.gpuworker.session.CodesFetcher.PageHead;
import io.kvtier.page.PageKey;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/**
 * Gives a pass the codes it needs: first those in the hot set, then, in batches that bound what is
 * on the device at once, those that have to be fetched, last those that a prefetch is bringing.
 * Codes are held only while they are used; what was fetched is offered to the hot set. One thread,
 * one query.
 */
final class StepCodes {
  private final int layer;
  private final HotSet hotSet;
  private final CodesFetcher fetcher;
  private final int stagingSlots;
  private final long timeoutNs;
  private long unhiddenNs;
  private long stagedBytes;
  private int hits;
  private int late;
  private int fetched;

  /** Takes up the codes of needed pairs; they are valid during the call. */
  interface Taker {
    void take(int[] pairs, DeviceSlot[] codes, int count);
  }

  /**
   * Codes for one query.
   *
   * @param stagingSlots most pairs fetched at once, 1 or more
   * @param timeoutNs longest wait for a prefetch under way, in nanoseconds
   */
  StepCodes(int layer, HotSet hotSet, CodesFetcher fetcher, int stagingSlots, long timeoutNs) {
    this.layer = layer;
    this.hotSet = hotSet;
    this.fetcher = fetcher;
    this.stagingSlots = stagingSlots;
    this.timeoutNs = timeoutNs;
  }

  /**
   * Gives out every pair that a pass needs, once each.
   *
   * @param pass whose choice has been made
   * @param keys of all of the layer's pages
   * @throws KvtierException if a fetch is refused; pairs may have been given out by then
   */
  void give(LayerPass pass, List<PageKey> keys, Taker taker) {
    List<Integer> missing = new ArrayList<>();
    List<Integer> coming = new ArrayList<>();
    Batch found = new Batch(pass.neededCount());
    try {
      for (int i = 0; i < pass.neededCount(); i++) {
        CompletableFuture<DeviceSlot> future = hotSet.find(key(pass, i));
        if (future != null && !future.isDone()) {
          coming.add(i);
        } else if (future == null || !hold(future, i, found)) {
          missing.add(i);
        }
      }
      found.give(taker);
    } finally {
      found.release();
    }
    fetch(pass, keys, missing, taker);
    late += coming.size();
    missing.clear();
    Batch late = new Batch(coming.size());
    try {
      for (int i : coming) {
        CompletableFuture<DeviceSlot> future = hotSet.find(key(pass, i));
        if (future == null || !hold(future, i, late)) {
          missing.add(i);
        }
      }
      late.give(taker);
    } finally {
      late.release();
    }
    fetch(pass, keys, missing, taker);
  }

  /** Pairs with their codes, held until released. */
  private static final class Batch {
    private final int[] pairs;
    private final DeviceSlot[] codes;
    private int count;

    Batch(int room) {
      this.pairs = new int[room];
      this.codes = new DeviceSlot[room];
    }

    void add(int pair, DeviceSlot held) {
      pairs[count] = pair;
      codes[count++] = held;
    }

    void give(Taker taker) {
      if (count > 0) {
        taker.take(pairs, codes, count);
      }
    }

    void release() {
      for (int i = 0; i < count; i++) {
        codes[i].release();
      }
    }
  }

  private HotSet.Key key(LayerPass pass, int index) {
    return new HotSet.Key(
        layer, pass.neededPage(index), pass.neededHead(index), pass.neededSections(index));
  }

  /**
   * Adds the pair's codes to a batch. False if the slot was evicted meanwhile, or its prefetch
   * failed or takes too long: it is missing like any other then.
   */
  private boolean hold(CompletableFuture<DeviceSlot> future, int index, Batch batch) {
    DeviceSlot slot;
    long startNs = System.nanoTime();
    try {
      slot = future.get(timeoutNs, TimeUnit.NANOSECONDS);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new KvtierException(Code.UNAVAILABLE, "interrupted while codes are being fetched", e);
    } catch (ExecutionException | TimeoutException e) {
      // The step fetches for itself and tells if that fails too.
      return false;
    } finally {
      unhiddenNs += System.nanoTime() - startNs;
    }
    if (!slot.tryRetain()) {
      return false;
    }
    batch.add(index, slot);
    hits++;
    return true;
  }

  private void fetch(LayerPass pass, List<PageKey> keys, List<Integer> missing, Taker taker) {
    missing.sort(
        Comparator.<Integer>comparingInt(pass::neededPage).thenComparingInt(pass::neededHead));
    for (int from = 0; from < missing.size(); from += stagingSlots) {
      fetchBatch(
          pass, keys, missing.subList(from, Math.min(missing.size(), from + stagingSlots)), taker);
    }
  }

  private void fetchBatch(LayerPass pass, List<PageKey> keys, List<Integer> batch, Taker taker) {
    List<PageHead> wanted = new ArrayList<>(batch.size());
    for (int index : batch) {
      wanted.add(
          new PageHead(pass.neededPage(index), pass.neededHead(index), pass.neededSections(index)));
    }
    long startNs = System.nanoTime();
    List<DeviceSlot> slots = fetcher.fetch(wanted, keys);
    unhiddenNs += System.nanoTime() - startNs;
    long bytes = 0;
    for (DeviceSlot slot : slots) {
      bytes += slot.length();
    }
    stagedBytes = Math.max(stagedBytes, bytes);
    fetched += slots.size();
    Batch given = new Batch(slots.size());
    for (int i = 0; i < slots.size(); i++) {
      given.add(batch.get(i), slots.get(i));
    }
    try {
      given.give(taker);
      for (int i = 0; i < slots.size(); i++) {
        hotSet.admit(key(pass, batch.get(i)), slots.get(i));
      }
    } finally {
      given.release();
    }
  }

  int hits() {
    return hits;
  }

  /** Pairs that a prefetch was still bringing when the step needed them. */
  int late() {
    return late;
  }

  int fetched() {
    return fetched;
  }

  /** Nanoseconds of waiting. */
  long unhiddenNs() {
    return unhiddenNs;
  }

  /** Most device bytes of one batch. */
  long stagedBytes() {
    return stagedBytes;
  }
}
