package io.kvtier.wire;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import java.nio.ByteBuffer;
import org.agrona.concurrent.UnsafeBuffer;

/**
 * Memory that one message's bytes are put together in, used again for the next. Grows to what the
 * largest so far needed, never above its bound. One thread at a time.
 */
public final class Staging {
  private static final int BYTES_MIN = 128 << 10;

  private final int bytesMax;
  private final boolean onHeap;
  private UnsafeBuffer buffer = new UnsafeBuffer(new byte[0]);

  private Staging(int bytesMax, boolean onHeap) {
    this.bytesMax = bytesMax;
    this.onHeap = onHeap;
  }

  /** Off heap; freed when it is unreachable. */
  public static Staging offHeap(int bytesMax) {
    return new Staging(bytesMax, false);
  }

  /** In an array, from which gRPC sends without a further copy. */
  public static Staging onHeap(int bytesMax) {
    return new Staging(bytesMax, true);
  }

  /** Most bytes that it grows to. */
  public int bytesMax() {
    return bytesMax;
  }

  /** The memory as it is. */
  public UnsafeBuffer buffer() {
    return buffer;
  }

  /**
   * The memory, at least {@code bytes} long, with its first {@code kept} bytes kept.
   *
   * @throws KvtierException EXHAUSTED above the bound
   */
  public UnsafeBuffer ensure(int bytes, int kept) {
    if (bytes > bytesMax) {
      throw new KvtierException(
          Code.EXHAUSTED,
          "a message has %d bytes of pages; at most %d are taken at once"
              .formatted(bytes, bytesMax));
    }
    if (bytes > buffer.capacity()) {
      int size = (int) Math.min(bytesMax, Math.max(BYTES_MIN, bytes + bytes / 2L));
      UnsafeBuffer larger =
          onHeap
              ? new UnsafeBuffer(new byte[size])
              : new UnsafeBuffer(ByteBuffer.allocateDirect(size));
      larger.putBytes(0, buffer, 0, kept);
      buffer = larger;
    }
    return buffer;
  }
}
