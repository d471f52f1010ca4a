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
 * Gives a pass the codes it needs, pair by pair: first those in the hot set, then, in batches that
 * bound what is on the device at once, those that have to be fetched, last those that a prefetch is
 * bringing. A pair is held only while it is used; what was fetched is offered to the hot set. One
 * thread, one query.
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
  private int fetched;

  /** Takes up the codes of one needed pair; they are valid during the call. */
  interface Taker {
    void take(int index, DeviceSlot codes);
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
    for (int i = 0; i < pass.neededCount(); i++) {
      CompletableFuture<DeviceSlot> found = hotSet.find(key(pass, i));
      if (found != null && !found.isDone()) {
        coming.add(i);
      } else if (found == null || !giveFound(found, i, taker)) {
        missing.add(i);
      }
    }
    fetch(pass, keys, missing, taker);
    missing.clear();
    for (int i : coming) {
      CompletableFuture<DeviceSlot> found = hotSet.find(key(pass, i));
      if (found == null || !giveFound(found, i, taker)) {
        missing.add(i);
      }
    }
    fetch(pass, keys, missing, taker);
  }

  private HotSet.Key key(LayerPass pass, int index) {
    return new HotSet.Key(layer, pass.neededPage(index), pass.neededHead(index));
  }

  /**
   * False if the slot was evicted meanwhile, or its prefetch failed or takes too long: it is
   * missing like any other then.
   */
  private boolean giveFound(CompletableFuture<DeviceSlot> found, int index, Taker taker) {
    DeviceSlot slot;
    long startNs = System.nanoTime();
    try {
      slot = found.get(timeoutNs, TimeUnit.NANOSECONDS);
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
    try {
      taker.take(index, slot);
    } finally {
      slot.release();
    }
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
      wanted.add(new PageHead(pass.neededPage(index), pass.neededHead(index)));
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
    try {
      for (int i = 0; i < slots.size(); i++) {
        taker.take(batch.get(i), slots.get(i));
        hotSet.admit(key(pass, batch.get(i)), slots.get(i));
      }
    } finally {
      slots.forEach(DeviceSlot::release);
    }
  }

  int hits() {
    return hits;
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
