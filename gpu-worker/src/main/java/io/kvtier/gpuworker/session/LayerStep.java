package io.kvtier.gpuworker.session;

import io.kvtier.gpuworker.device.LayerPass;
import io.kvtier.gpuworker.device.LayerShape;
import io.kvtier.page.PageKey;
import java.util.List;
import java.util.function.LongSupplier;

/**
 * Attends the queries of one step to one layer: choose, fetch what is missing, attend. Changes
 * nothing of the layer; its caller holds the lock.
 */
final class LayerStep {
  private static final int STAGING_SLOTS_MIN = 32;

  private final LayerShape shape;
  private final HotSet hotSet;
  private final CodesFetcher fetcher;
  private final long timeoutNs;
  private final LongSupplier deviceBytes;

  /**
   * Steps of one session.
   *
   * @param timeoutNs longest wait for a prefetch under way, in nanoseconds
   * @param deviceBytes what the session holds on the device, what is staged left out
   */
  LayerStep(
      LayerShape shape,
      HotSet hotSet,
      CodesFetcher fetcher,
      long timeoutNs,
      LongSupplier deviceBytes) {
    this.shape = shape;
    this.hotSet = hotSet;
    this.fetcher = fetcher;
    this.timeoutNs = timeoutNs;
    this.deviceBytes = deviceBytes;
  }

  /**
   * Pairs fetched at once: a quarter of a layer's, so that few round trips are made and little is
   * staged.
   */
  static int stagingSlots(LayerShape shape, int tokens) {
    return Math.max(STAGING_SLOTS_MIN, shape.pages(tokens) * shape.kvHeads() / 4);
  }

  /**
   * Attends.
   *
   * @param queries {@code [tokens][qHeads][headDim]}
   * @param keys {@code [tokens][kvHeads][headDim]} of the step's own tokens, which the layer does
   *     not have yet
   * @param values same shape
   */
  StepResult attend(
      SessionLayer target, int layer, int tokens, float[] queries, float[] keys, float[] values) {
    int queryLength = shape.qHeads() * shape.headDim();
    StepTally tally = new StepTally(tokens * queryLength, tokens * shape.qHeads());
    long bytesBefore = fetcher.bytesFetched();
    int stagingSlots = stagingSlots(shape, target.device.tokens());
    List<PageKey> pageKeys = target.device.pageKeys();
    LayerPass pass = target.pass();
    try {
      for (int t = 0; t < tokens; t++) {
        long startNs = System.nanoTime();
        pass.choose(queries, t * queryLength, keys, values, t + 1);
        StepCodes codes = new StepCodes(layer, hotSet, fetcher, stagingSlots, timeoutNs);
        codes.give(pass, pageKeys, pass::attendNeeded);
        pass.finish(tally.output, t * queryLength, tally.lse, t * shape.qHeads());
        tally.add(
            codes,
            pass.chosenTotal(),
            System.nanoTime() - startNs,
            deviceBytes.getAsLong() + codes.stagedBytes());
      }
    } finally {
      pass.release();
    }
    return tally.result(target.prefetched.getAndSet(0), fetcher.bytesFetched() - bytesBefore);
  }
}
