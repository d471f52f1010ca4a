package io.kvtier.gpuworker.session;

import io.kvtier.KvtierException;
import io.kvtier.gpuworker.device.CodesTaker;
import io.kvtier.gpuworker.device.DeviceSlot;
import io.kvtier.gpuworker.device.LayerShape;
import io.kvtier.gpuworker.session.CodesFetcher.PageHead;
import io.kvtier.page.PageKey;
import io.kvtier.page.Residence;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.Executor;

/**
 * Streams the pages of a layer's streamed heads through, in order: while one part is attended to,
 * the next is on its way. One query; the caller holds the layer's lock.
 */
final class StepPages {
  private static final Part NOTHING = new Part(List.of(), List.of());

  private final CodesTaker taker;
  private final List<PageKey> keys;
  private final CodesFetcher fetcher;
  private final Executor executor;
  private final Staging.Lease staging;
  private final int partSlots;
  private final StepNear near;
  private long unhiddenNs;
  private long stagedBytes;
  private int fetched;

  /** Pages with a head each, and their codes, held. */
  private record Part(List<PageHead> wanted, List<DeviceSlot> slots) {
    void release() {
      slots.forEach(DeviceSlot::release);
    }

    long bytes() {
      return slots.stream().mapToLong(DeviceSlot::length).sum();
    }
  }

  /**
   * Pages for one query.
   *
   * @param keys of all of the layer's pages
   * @param executor runs fetches
   * @param staging for the pages that are on the device at once
   * @param near hears of each page
   */
  StepPages(
      CodesTaker taker,
      List<PageKey> keys,
      CodesFetcher fetcher,
      Executor executor,
      Staging.Lease staging,
      StepNear near) {
    this.near = near;
    this.taker = taker;
    this.keys = keys;
    this.fetcher = fetcher;
    this.executor = executor;
    this.staging = staging;
    this.partSlots = Math.max(1, staging.slots() / 2);
  }

  /**
   * Gives out every page from {@code firstPage} on.
   *
   * @param shape of the layer
   * @throws KvtierException if a fetch is refused
   */
  void give(LayerShape shape, int firstPage) {
    int codes = Residence.STREAMED.codes(shape.layout());
    List<PageHead> all = new ArrayList<>();
    for (int page = firstPage; page < keys.size(); page++) {
      for (int head = 0; head < shape.kvHeads(); head++) {
        if (taker.streams(head)) {
          all.add(new PageHead(page, head, codes));
        }
      }
    }
    if (all.isEmpty()) {
      return;
    }
    CompletableFuture<Part> next = start(all, 0);
    taker.attendResident();
    for (int from = 0; from < all.size(); from += partSlots) {
      Part part = await(next);
      next = CompletableFuture.completedFuture(NOTHING);
      try {
        next = start(all, from + partSlots);
        attend(part);
      } catch (RuntimeException e) {
        // What is on its way belongs to nobody any more.
        next.thenAccept(Part::release).exceptionally(late -> null).join();
        throw e;
      } finally {
        part.release();
      }
    }
  }

  private CompletableFuture<Part> start(List<PageHead> all, int from) {
    if (from >= all.size()) {
      return CompletableFuture.completedFuture(NOTHING);
    }
    List<PageHead> wanted = all.subList(from, Math.min(all.size(), from + partSlots));
    return CompletableFuture.supplyAsync(
        () -> new Part(wanted, fetcher.fetch(wanted, keys, staging.memory()::allocate)), executor);
  }

  private Part await(CompletableFuture<Part> next) {
    long startNs = System.nanoTime();
    try {
      return next.join();
    } catch (CompletionException e) {
      throw e.getCause() instanceof RuntimeException refused ? refused : e;
    } finally {
      unhiddenNs += System.nanoTime() - startNs;
    }
  }

  private void attend(Part part) {
    int count = part.slots().size();
    int[] pages = part.wanted().stream().mapToInt(PageHead::page).toArray();
    int[] heads = part.wanted().stream().mapToInt(PageHead::kvHead).toArray();
    taker.attendPages(pages, heads, part.slots().toArray(DeviceSlot[]::new), count);
    for (int i = 0; i < count; i++) {
      near.fetched(pages[i], heads[i], part.slots().get(i));
    }
    fetched += count;
    stagedBytes = Math.max(stagedBytes, 2 * part.bytes());
  }

  int fetched() {
    return fetched;
  }

  /** Nanoseconds of waiting. */
  long unhiddenNs() {
    return unhiddenNs;
  }

  /** Most device bytes that were held. */
  long stagedBytes() {
    return stagedBytes;
  }
}
