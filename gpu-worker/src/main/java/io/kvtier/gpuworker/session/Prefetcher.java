package io.kvtier.gpuworker.session;

import io.kvtier.KvtierException;
import io.kvtier.gpuworker.core.HeadPolicy;
import io.kvtier.gpuworker.device.LayerPass;
import io.kvtier.page.PageKey;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * Brings rows into a layer's arena before the step that needs them, from a hint: the predicted
 * query chooses as the real one will (InfiniGen, arXiv 2406.19707; TailorKV, section 4.2). A hint
 * whose step has begun already is dropped, and so is one that comes while another's rows are still
 * on their way. Safe for any number of threads.
 */
final class Prefetcher {
  private final RowFetcher fetcher;

  Prefetcher(RowFetcher fetcher) {
    this.fetcher = fetcher;
  }

  /**
   * Prefetches what a predicted query of a layer would choose.
   *
   * @param position the layer's tokens as long as the hint is in time
   * @param hint {@code [qHeads][headDim]} from {@code at} on
   */
  void prefetch(SessionLayer target, int position, float[] hint, int at) {
    Prefetch prefetch;
    List<PageKey> keys;
    List<HeadPolicy> policies;
    target.lock.lock();
    try {
      boolean late = target.device.tokens() != position || target.policies.isEmpty();
      if (late || target.prefetch != null) {
        return;
      }
      prefetch = announce(target, hint, at);
      if (prefetch == null) {
        return;
      }
      target.prefetch = prefetch;
      keys = target.device.pageKeys();
      policies = target.policies;
    } finally {
      target.lock.unlock();
    }
    fetch(target, prefetch, keys, policies);
  }

  /** Makes rows for what the hint chooses and is not there; null: nothing is missing. */
  private static @Nullable Prefetch announce(SessionLayer target, float[] hint, int at) {
    LayerPass pass = target.hintPass();
    pass.choose(hint, at, new float[0], new float[0], 0);
    pass.release();
    RowBatch batch = new RowBatch();
    for (int head = 0; head < target.policies.size(); head++) {
      for (int i = 0; pass.rowSections(head) != 0 && i < pass.chosenCount(head); i++) {
        int key = RowArena.key(head, pass.chosenPosition(head, i));
        int row = target.rows.find(key);
        if (row != RowArena.ABSENT) {
          target.rows.keep(row);
          continue;
        }
        // What the arena cannot keep would be fetched for nothing.
        row = target.rows.admit(key);
        if (row != RowArena.ABSENT) {
          batch.add(pass.chosenPosition(head, i), head, row);
        }
      }
    }
    batch.sort();
    return batch.count() == 0 ? null : new Prefetch(batch, target.rows);
  }

  private void fetch(
      SessionLayer target, Prefetch prefetch, List<PageKey> keys, List<HeadPolicy> policies) {
    try {
      fetcher.fetch(prefetch.batch, keys, head -> policies.get(head).residence().rows());
      target.prefetched.addAndGet(prefetch.batch.count());
      prefetch.done.complete(null);
    } catch (KvtierException e) {
      // Nobody asked for these yet: the step that needs them fetches again and tells the engine.
      prefetch.done.completeExceptionally(e);
    } catch (RuntimeException e) {
      prefetch.done.completeExceptionally(e);
      throw e;
    } finally {
      settle(target, prefetch);
    }
  }

  /** Unless the step has done so. */
  private static void settle(SessionLayer target, Prefetch prefetch) {
    target.lock.lock();
    try {
      if (target.prefetch == prefetch) {
        prefetch.settle(target.rows);
        target.prefetch = null;
      }
    } finally {
      target.lock.unlock();
      prefetch.release();
    }
  }
}
