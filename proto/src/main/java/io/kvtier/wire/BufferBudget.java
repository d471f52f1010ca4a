package io.kvtier.wire;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import java.util.concurrent.atomic.AtomicLong;

/**
 * A bound of the buffers of many {@link FrameChannel}s together. Safe for any number of threads.
 */
public final class BufferBudget {
  private final long bytesMax;
  private final AtomicLong used = new AtomicLong();

  public BufferBudget(long bytesMax) {
    this.bytesMax = bytesMax;
  }

  /** One that never refuses. */
  static BufferBudget unbounded() {
    return new BufferBudget(Long.MAX_VALUE);
  }

  /**
   * Takes bytes.
   *
   * @throws KvtierException EXHAUSTED, and none are taken, if they are more than what is left
   */
  void take(long bytes) {
    long before;
    do {
      before = used.get();
      if (bytes > bytesMax - before) {
        throw new KvtierException(
            Code.EXHAUSTED,
            "buffers of all connections have %d of %d bytes, and %d more are needed; try again, or"
                    .formatted(before, bytesMax, bytes)
                + " over gRPC");
      }
    } while (!used.compareAndSet(before, before + bytes));
  }

  void giveBack(long bytes) {
    used.addAndGet(-bytes);
  }

  /** Whether more than half is taken, so that who has more than is needed shall give it back. */
  boolean scarce() {
    return used.get() > bytesMax / 2;
  }

  /** Bytes taken. */
  public long used() {
    return used.get();
  }
}
