package io.kvtier.cachetier.grpc;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * A bound of the streams with page bytes that are open at a time over gRPC, so that what they hold
 * of answers is bounded too: each at most {@link PacedStream#BUFFERED_BYTES} and one answer. Safe
 * for any number of threads.
 */
final class StreamLimit {
  /** Most streams at a time. */
  static final int STREAMS_MAX = 512;

  private final AtomicInteger open = new AtomicInteger();

  /**
   * Counts one more stream; the ticket ends it, once however often it is run.
   *
   * @throws KvtierException EXHAUSTED if there are too many
   */
  Runnable enter() {
    if (open.incrementAndGet() > STREAMS_MAX) {
      open.decrementAndGet();
      throw new KvtierException(
          Code.EXHAUSTED,
          "%d streams of pages are open, which is the bound; try again".formatted(STREAMS_MAX));
    }
    AtomicInteger held = new AtomicInteger(1);
    return () -> open.addAndGet(-held.getAndSet(0));
  }

  /** Streams that are open. */
  int open() {
    return open.get();
  }
}
