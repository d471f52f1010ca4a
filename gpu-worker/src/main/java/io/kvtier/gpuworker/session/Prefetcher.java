package io.kvtier.gpuworker.session;

import io.kvtier.KvtierException;
import io.kvtier.gpuworker.core.HeadPolicy;
import io.kvtier.gpuworker.device.LayerPass;
import io.kvtier.gpuworker.device.LayerShape;
import io.kvtier.page.PageKey;
import java.util.List;
import java.util.concurrent.CompletionException;
import java.util.concurrent.Executor;
import java.util.function.Consumer;
import java.util.function.IntUnaryOperator;

/**
 * Brings rows into a layer's arena before the step that needs them. From a hint: the predicted
 * query chooses as the real one will (InfiniGen, arXiv 2406.19707; TailorKV, section 4.2), part by
 * part, each part's rows on their way while the next is chosen. Without one: what the last query
 * chose, of heads that were measured to choose much of it again, and the step's own choice corrects
 * it; the arena has most of that but where device bytes are few. A hint whose step has begun
 * already is dropped, and so is one that comes while another's rows are still on their way; one
 * whose step comes while it chooses leaves the parts to it that are still to be chosen. Safe for
 * any number of threads.
 */
final class Prefetcher {
  private final RowFetcher fetcher;
  private final Executor executor;
  private final LayerShape shape;
  private final long deviceBytesMax;

  /**
   * A prefetcher.
   *
   * @param executor runs fetches
   * @param deviceBytesMax what the session may hold on the device; 0: no bound
   */
  Prefetcher(LayerShape shape, RowFetcher fetcher, Executor executor, long deviceBytesMax) {
    this.shape = shape;
    this.fetcher = fetcher;
    this.executor = executor;
    this.deviceBytesMax = deviceBytesMax;
  }

  /**
   * Prefetches what a predicted query of a layer would choose.
   *
   * @param position the layer's tokens as long as the hint is in time
   * @param hint {@code [qHeads][headDim]} from {@code at} on
   */
  void prefetch(SessionLayer target, int position, float[] hint, int at) {
    prefetch(target, position, prefetch -> announce(target, prefetch, hint, at));
  }

  /**
   * Prefetches what the last query of a layer chose.
   *
   * @param position as above
   */
  void prefetchLast(SessionLayer target, int position) {
    prefetch(target, position, prefetch -> announceLast(target, prefetch));
  }

  private void prefetch(SessionLayer target, int position, Consumer<Prefetch> announce) {
    Prefetch prefetch = new Prefetch();
    target.enter();
    try {
      boolean late = target.device.tokens() != position || target.policies.isEmpty();
      if (!late && target.prefetch == null) {
        target.rows.lend(LayerStep.aheadBytes(shape, position, deviceBytesMax));
        announce.accept(prefetch);
      }
    } finally {
      target.leave();
      if (!prefetch.parts().isEmpty()) {
        finish(target, prefetch);
      }
    }
  }

  /** Makes rows for what the hint chooses and is not there, and has them fetched. */
  private void announce(SessionLayer target, Prefetch prefetch, float[] hint, int at) {
    List<PageKey> keys = target.device.pageKeys();
    LayerPass pass = target.hintPass();
    try {
      pass.begin(hint, at, new float[0], new float[0], 0);
      for (int part = 0; part < pass.parts(); part++) {
        if (part > 0 && target.isAwaited()) {
          // The step chooses by its own query what is left, and waits no longer than it must.
          return;
        }
        pass.choosePart(part);
        RowBatch missing = missing(target, pass, part);
        if (missing.count() > 0) {
          target.prefetch = prefetch;
          start(target, prefetch.add(missing, target.rows), keys, target.policies);
        }
      }
    } finally {
      pass.release();
    }
  }

  /** Rows of a part that the arena has not and has made room for. */
  private static RowBatch missing(SessionLayer target, LayerPass pass, int part) {
    RowBatch batch = new RowBatch();
    for (int head = 0; head < target.policies.size(); head++) {
      if (pass.partOf(head) == part && pass.rowSections(head) != 0) {
        int of = head;
        addMissing(target, batch, head, pass.chosenCount(head), i -> pass.chosenPosition(of, i));
      }
    }
    batch.sort();
    return batch;
  }

  private void announceLast(SessionLayer target, Prefetch prefetch) {
    RowBatch batch = new RowBatch();
    LastChosen last = target.last;
    for (int head = 0; head < target.policies.size(); head++) {
      if (last.recurs(head)) {
        int of = head;
        addMissing(target, batch, head, last.count(head), i -> last.position(of, i));
      }
    }
    batch.sort();
    if (batch.count() > 0) {
      target.prefetch = prefetch;
      start(target, prefetch.add(batch, target.rows), target.device.pageKeys(), target.policies);
    }
  }

  /** Adds those of a head's rows that the arena has not and has made room for. */
  private static void addMissing(
      SessionLayer target, RowBatch batch, int head, int count, IntUnaryOperator positions) {
    RowArena arena = target.rows;
    RowLookup lookup = target.lookup;
    lookup.clear();
    for (int i = 0; i < count; i++) {
      lookup.add(head, positions.applyAsInt(i));
    }
    lookup.find(arena);
    for (int i = 0; i < count; i++) {
      if (lookup.row(i) != RowArena.ABSENT) {
        arena.keepAhead(lookup.row(i));
      }
    }
    // What the arena cannot keep until the step would be fetched for nothing.
    lookup.admit(arena);
    for (int i = 0; i < count; i++) {
      if (lookup.row(i) != RowArena.ABSENT) {
        arena.markAhead(lookup.row(i));
        batch.add(positions.applyAsInt(i), head, lookup.row(i));
      }
    }
  }

  private void start(
      SessionLayer target, Prefetch.Part part, List<PageKey> keys, List<HeadPolicy> policies) {
    try {
      executor.execute(() -> fetch(target, part, keys, policies));
    } catch (RuntimeException e) {
      part.done.completeExceptionally(e);
      throw e;
    }
  }

  private void fetch(
      SessionLayer target, Prefetch.Part part, List<PageKey> keys, List<HeadPolicy> policies) {
    try {
      fetcher.fetch(part.batch, keys, head -> policies.get(head).residence().rows());
      part.bytes = bytes(part.batch, policies);
      target.prefetched.addAndGet(part.batch.count());
      part.done.complete(null);
    } catch (RuntimeException | Error e) {
      part.done.completeExceptionally(e);
    }
  }

  private long bytes(RowBatch batch, List<HeadPolicy> policies) {
    long bytes = 0;
    for (int i = 0; i < batch.count(); i++) {
      bytes += fetcher.rowBytes(policies.get(batch.kvHead(i)).residence().rows());
    }
    return bytes;
  }

  /**
   * Waits for what is on its way, and settles it unless the step has done so. That a tier refuses
   * is no fault: nobody asked for these rows yet, and the step that needs them fetches again and
   * tells the engine.
   */
  private static void finish(SessionLayer target, Prefetch prefetch) {
    try {
      prefetch.join();
    } catch (CompletionException e) {
      if (!(e.getCause() instanceof KvtierException)) {
        throw e;
      }
    } finally {
      settle(target, prefetch);
    }
  }

  private static void settle(SessionLayer target, Prefetch prefetch) {
    target.enter();
    try {
      if (target.prefetch == prefetch) {
        prefetch.parts().forEach(part -> part.settle(target));
        target.prefetch = null;
      }
    } finally {
      target.leave();
      prefetch.release();
    }
  }
}
