package io.kvtier.gpuworker.session;

import io.kvtier.gpuworker.core.MeasuredRates;
import io.kvtier.gpuworker.device.LayerPass;
import io.kvtier.gpuworker.device.LayerShape;
import io.kvtier.page.PageKey;
import io.kvtier.page.Residence;
import java.util.List;
import java.util.function.BooleanSupplier;
import java.util.function.LongSupplier;

/**
 * Attends the queries of one step to one layer: choose, fetch what is missing, attend. Changes
 * nothing of the layer; its caller holds the lock.
 */
final class LayerStep {
  private static final int STAGING_SLOTS_MIN = 32;

  /** At most this share of a session's device bytes is staged. */
  private static final int STAGING_SHARE = 16;

  /**
   * Of what is staged, the share of one layer's rows that are brought ahead: those of the layer
   * whose step is under way and of the next one take half.
   */
  private static final int AHEAD_SHARE = 4;

  private final LayerShape shape;
  private final StepFetches fetches;
  private final BooleanSupplier bringsAhead;
  private final long deviceBytesMax;
  private final LongSupplier deviceBytes;
  private final MeasuredRates rates;

  /**
   * Steps of one session.
   *
   * @param bringsAhead whether rows are brought ahead of steps
   * @param deviceBytesMax what the session may hold on the device; 0: no bound
   * @param deviceBytes what the session holds on the device, what is staged left out
   * @param rates hears how long queries take
   */
  LayerStep(
      LayerShape shape,
      StepFetches fetches,
      BooleanSupplier bringsAhead,
      long deviceBytesMax,
      LongSupplier deviceBytes,
      MeasuredRates rates) {
    this.rates = rates;
    this.bringsAhead = bringsAhead;
    this.shape = shape;
    this.fetches = fetches;
    this.deviceBytesMax = deviceBytesMax;
    this.deviceBytes = deviceBytes;
  }

  /**
   * Pages, of a head each, that may be on the device at once on their way through: a quarter of a
   * layer's, so that few round trips are made and little is staged; fewer where the session's
   * device bytes are few.
   *
   * @param deviceBytesMax what the session may hold on the device; 0: no bound
   */
  static int stagingSlots(LayerShape shape, int tokens, long deviceBytesMax) {
    int wanted = Math.max(STAGING_SLOTS_MIN, shape.pages(tokens) * shape.kvHeads() / 4);
    if (deviceBytesMax == 0) {
      return wanted;
    }
    long affordable =
        (deviceBytesMax / STAGING_SHARE - finerBytes(shape)) / stagingSlotBytes(shape);
    return Math.clamp(affordable, Staging.SLOTS_LEAST, wanted);
  }

  /** Most bytes of a layer's rows that are brought ahead and that its arena cannot keep. */
  static long aheadBytes(LayerShape shape, int tokens, long deviceBytesMax) {
    return (long) stagingSlots(shape, tokens, deviceBytesMax)
        * stagingSlotBytes(shape)
        / AHEAD_SHARE;
  }

  /** Most bytes of a slot that is staged: a whole head of a page. */
  static int stagingSlotBytes(LayerShape shape) {
    return shape.codesBytes(Residence.STREAMED);
  }

  /** Bytes of what four bits leave of all the tokens that a query may want finer. */
  static int finerBytes(LayerShape shape) {
    return shape.kvHeads() * Residence.FINER_TOKENS_MAX * shape.finerRowBytes();
  }

  /** Device bytes that a step may stage. */
  static long stagedBytes(LayerShape shape, int tokens, long deviceBytesMax) {
    return (long) stagingSlots(shape, tokens, deviceBytesMax) * stagingSlotBytes(shape)
        + finerBytes(shape);
  }

  /**
   * Attends.
   *
   * @param queries {@code [tokens][qHeads][headDim]}
   * @param rows what the queries see of tokens that the layer does not have yet
   */
  StepResult attend(SessionLayer target, int tokens, float[] queries, NewRows rows) {
    int queryLength = shape.qHeads() * shape.headDim();
    StepTally tally = new StepTally(tokens * queryLength, tokens * shape.qHeads());
    long bytesBefore = fetches.bytesFetched();
    long bytesMoved = 0;
    int stagingSlots =
        stagingSlots(shape, target.device.tokens(), deviceBytesMax)
            / (bringsAhead.getAsBoolean() ? 2 : 1);
    List<PageKey> pageKeys = target.device.pageKeys();
    LayerPass pass = target.pass();
    try (Staging.Lease lease = fetches.staging().lease(stagingSlots)) {
      for (int t = 0; t < tokens; t++) {
        if (t > 0) {
          giveWay();
        }
        long startNs = System.nanoTime();
        rows.select(t);
        pass.begin(queries, t * queryLength, rows.keys(), rows.values(), rows.count());
        StepNear near = fetches.near().begin(pass, queries, t * queryLength, pageKeys);
        StepFetches.Cost cost = fetches.give(target, pass, pageKeys, lease, near);
        bytesMoved += pass.bytesMoved();
        pass.finish(tally.output, t * queryLength, tally.lse, t * shape.qHeads());
        near.merge(tally.output, t * queryLength, tally.lse, t * shape.qHeads());
        long elapsedNs = System.nanoTime() - startNs;
        tally.add(cost, pass, elapsedNs, deviceBytes.getAsLong() + cost.stagedBytes());
        if (cost.near() == 0) {
          rates.attended(attendedBytes(target), elapsedNs - cost.unhiddenNs());
        }
      }
    } finally {
      pass.release();
    }
    long wasted = target.aheadUnused;
    target.aheadUnused = 0;
    target.rows.endAhead();
    return tally.result(
        target.prefetched.getAndSet(0), wasted, fetches.bytesFetched() - bytesBefore + bytesMoved);
  }

  /** Bytes that a query scans or attends to, as a planner counts them; 0: nothing is placed. */
  private long attendedBytes(SessionLayer target) {
    long bytes = 0;
    for (int head = 0; head < target.policies.size() && target.device.placesHeads(); head++) {
      bytes += attendedBytes(target.policies.get(head).residence());
    }
    return bytes * target.device.pages();
  }

  private long attendedBytes(Residence residence) {
    return switch (residence) {
      case STREAMED -> shape.codesBytes(Residence.STREAMED);
      // A scan of one plane takes about as long as one of two.
      case ONE_PLANE, TWO_PLANES -> Residence.TWO_PLANES.deviceBytes(shape.layout());
      case DENSE -> Residence.DENSE.deviceBytes(shape.layout());
    };
  }

  /**
   * Lets other sessions' steps go first: steps run on virtual threads, which nobody preempts, and
   * one of many queries would hold up everybody else's.
   */
  @SuppressWarnings("ThreadPriorityCheck") // No result depends on it.
  private static void giveWay() {
    Thread.yield();
  }
}
