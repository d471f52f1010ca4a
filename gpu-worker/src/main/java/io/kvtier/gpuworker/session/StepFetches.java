package io.kvtier.gpuworker.session;

import io.kvtier.gpuworker.device.CodesTaker;
import io.kvtier.gpuworker.device.LayerShape;
import io.kvtier.page.PageKey;
import io.kvtier.page.Residence;
import java.util.List;
import java.util.concurrent.Executor;

/**
 * Gets for queries what is not on the device: rows of chosen tokens, pages of streamed heads. Safe
 * for any number of threads.
 *
 * @param staging lends the memory for what is on its way through
 * @param executor runs fetches
 * @param timeoutNs longest wait for a prefetch under way, in nanoseconds
 */
record StepFetches(
    LayerShape shape,
    Staging staging,
    RowFetcher rowFetcher,
    CodesFetcher codesFetcher,
    NearAttention near,
    Executor executor,
    long timeoutNs) {
  /** What one query has cost. */
  record Cost(
      int hits,
      int late,
      int fetched,
      long chooseNs,
      long unhiddenNs,
      int near,
      long stagedBytes) {}

  /**
   * Gives a query everything that it needs; the caller holds the layer's lock.
   *
   * @param keys of all of the layer's pages
   * @param lease for pages of heads on the device at once, or as many bytes of rows
   * @param elsewhere what the tier is attending to meanwhile
   * @throws io.kvtier.KvtierException if a fetch is refused
   */
  Cost give(
      SessionLayer target,
      CodesTaker taker,
      List<PageKey> keys,
      Staging.Lease lease,
      StepNear elsewhere) {
    int stagingBytes =
        (int)
            Math.min(
                Integer.MAX_VALUE, (long) lease.slots() * shape.codesBytes(Residence.STREAMED));
    StepRows rows =
        new StepRows(
            target, taker, keys, rowFetcher, lease.memory(), executor, stagingBytes, timeoutNs);
    rows.give();
    taker.attendResident();
    int firstPage = elsewhere.await();
    long startNs = System.nanoTime();
    StepPages pages = new StepPages(taker, keys, codesFetcher, executor, lease, elsewhere);
    pages.give(shape, firstPage);
    elsewhere.fetchedAll(System.nanoTime() - startNs);
    return new Cost(
        rows.hits(),
        rows.late(),
        rows.fetched() + pages.fetched(),
        rows.chooseNs(),
        rows.unhiddenNs() + elsewhere.unhiddenNs() + pages.unhiddenNs(),
        elsewhere.pairs(),
        Math.max(rows.stagedBytes(), pages.stagedBytes()));
  }

  /** Bytes that have come from the tier so far, and of the requests to it. */
  long bytesFetched() {
    return rowFetcher.bytesFetched() + codesFetcher.bytesFetched() + near.bytesMoved();
  }
}
