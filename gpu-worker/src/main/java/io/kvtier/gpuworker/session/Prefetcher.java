package io.kvtier.gpuworker.session;

import io.kvtier.KvtierException;
import io.kvtier.gpuworker.device.DeviceSlot;
import io.kvtier.gpuworker.device.LayerPass;
import io.kvtier.gpuworker.session.CodesFetcher.PageHead;
import io.kvtier.page.PageKey;
import io.kvtier.page.PageLayout;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;

/**
 * Brings codes into the hot set before the step that needs them, from a hint: the predicted query
 * chooses as the real one will (InfiniGen, arXiv 2406.19707; TailorKV, section 4.2). A hint whose
 * step has begun already is dropped. Safe for any number of threads.
 */
final class Prefetcher {
  private final HotSet hotSet;
  private final CodesFetcher fetcher;
  private final PageLayout layout;

  Prefetcher(HotSet hotSet, CodesFetcher fetcher, PageLayout layout) {
    this.layout = layout;
    this.hotSet = hotSet;
    this.fetcher = fetcher;
  }

  /**
   * Prefetches what a predicted query of a layer would choose.
   *
   * @param position the layer's tokens as long as the hint is in time
   * @param hint {@code [qHeads][headDim]} from {@code at} on
   */
  void prefetch(int layer, SessionLayer target, int position, float[] hint, int at) {
    List<HotSet.Key> announced = new ArrayList<>();
    List<CompletableFuture<DeviceSlot>> futures = new ArrayList<>();
    List<PageKey> keys;
    target.lock.lock();
    try {
      if (target.device.tokens() != position || target.policies.isEmpty()) {
        return;
      }
      LayerPass pass = target.hintPass();
      pass.choose(hint, at, new float[0], new float[0], 0);
      pass.release();
      keys = target.device.pageKeys();
      // What the hot set cannot keep would be fetched for nothing.
      long room = hotSet.bytesMax();
      for (int i = 0; i < pass.neededCount(); i++) {
        HotSet.Key key =
            new HotSet.Key(layer, pass.neededPage(i), pass.neededHead(i), pass.neededSections(i));
        room -= layout.lengthOf(key.sections());
        if (room < 0) {
          break;
        }
        CompletableFuture<DeviceSlot> future = hotSet.announce(key);
        if (future != null) {
          announced.add(key);
          futures.add(future);
        }
      }
    } finally {
      target.lock.unlock();
    }
    fetch(target, announced, futures, keys);
  }

  private void fetch(
      SessionLayer target,
      List<HotSet.Key> announced,
      List<CompletableFuture<DeviceSlot>> futures,
      List<PageKey> keys) {
    if (announced.isEmpty()) {
      return;
    }
    List<Integer> order = new ArrayList<>();
    for (int i = 0; i < announced.size(); i++) {
      order.add(i);
    }
    order.sort(
        java.util.Comparator.<Integer>comparingInt(i -> announced.get(i).page())
            .thenComparingInt(i -> announced.get(i).kvHead()));
    List<PageHead> wanted =
        order.stream()
            .map(i ->
                new PageHead(
                    announced.get(i).page(),
                    announced.get(i).kvHead(),
                    announced.get(i).sections()))
            .toList();
    try {
      List<DeviceSlot> slots = fetcher.fetch(wanted, keys);
      for (int i = 0; i < wanted.size(); i++) {
        hotSet.complete(futures.get(order.get(i)), slots.get(i));
      }
      target.prefetched.addAndGet(wanted.size());
    } catch (KvtierException e) {
      // Nobody asked for these yet: the step that needs them fetches again and tells the engine.
      futures.forEach(future -> future.completeExceptionally(e));
    } catch (RuntimeException e) {
      futures.forEach(future -> future.completeExceptionally(e));
      throw e;
    }
  }
}
